"""Is a decompressed body a measurement? Checked without building its values wherever the JSON is strict."""

import codecs
import threading
from typing import Any

import msgspec

from api.errors import ApiError, bad_request
from core.envelope import DocumentError, decode_json

MAX_LENIENT_BYTES = 16 * 1024 * 1024
"""Largest body, in bytes, that the tolerant decoder may take: it builds all values, many times the text's size."""

_FORMATS = ("json", "yaml")
_PIECE = 1024 * 1024  # bytes of UTF-8 checked at once: as text they may take four times as much
_lenient_lock = threading.Lock()  # one tolerant decoding at a time in a process bounds its memory


class _Envelope(msgspec.Struct):
    # Raw values are checked for syntax and skipped, which costs neither memory nor much time.
    format: msgspec.Raw = msgspec.Raw(b"")
    content: msgspec.Raw = msgspec.Raw(b"")


_decoder = msgspec.json.Decoder(_Envelope)


def check_submission(body: bytes) -> None:
    """Accept the envelope `{"format", "content"}` and the bare measurement; JSON as tolerantly as the fastpath.

    Raises:
        ApiError: 400 for what holds no measurement, 413 for non-standard JSON above `MAX_LENIENT_BYTES`.
    """
    try:
        envelope = _decoder.decode(body)
        check_utf8(body)
    except msgspec.ValidationError:
        raise bad_request("The body is not a JSON object. Send the envelope or the measurement.") from None
    except RecursionError:
        raise bad_request("The JSON is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        _check_lenient(body)
        return
    if envelope.format and envelope.content:
        first = bytes(memoryview(envelope.content)[:1])
        _check_format(decode_lenient(bytes(envelope.format)), is_object=first == b"{", is_text=first == b'"')


def decode_lenient(body: bytes) -> Any:
    """Decode JSON tolerantly, one body at a time.

    Raises:
        ApiError: 400 when it is not JSON, 413 when it is larger than `MAX_LENIENT_BYTES`.
    """
    if len(body) > MAX_LENIENT_BYTES:
        raise ApiError(413, f"Non-standard JSON may have at most {MAX_LENIENT_BYTES} bytes. Send strict JSON.")
    with _lenient_lock:
        try:
            return decode_json(body)
        except DocumentError as error:
            raise bad_request(str(error)) from None


def check_utf8(data: bytes | memoryview) -> None:
    """Raise UnicodeDecodeError when `data` is not UTF-8; the whole is never built as text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with memoryview(data) as view:
        for start in range(0, len(view), _PIECE):
            decoder.decode(view[start : start + _PIECE])
    decoder.decode(b"", final=True)


def _check_lenient(body: bytes) -> None:
    value = decode_lenient(body)
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object. Send the envelope or the measurement.")
    if "format" in value and "content" in value:
        content = value["content"]
        _check_format(value["format"], is_object=isinstance(content, dict), is_text=isinstance(content, str))


def _check_format(form: object, *, is_object: bool, is_text: bool) -> None:
    name = form.lower() if isinstance(form, str) else None
    if name not in _FORMATS:
        raise bad_request("The envelope's format is neither json nor yaml.")
    if not (is_object if name == "json" else is_text):
        raise bad_request("The envelope's content does not match its format: an object for json, text for yaml.")
