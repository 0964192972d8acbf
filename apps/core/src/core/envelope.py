"""The submission envelope `{"format": …, "content": …}` and the measurement inside it, byte for byte.

What a probe sent is kept exactly: the measurement handed out later is the slice of the body between the envelope's
braces, not a re-serialisation. Decoding is fast for well-formed JSON and falls back to a tolerant decoder for what
probes in the field do send: NaN, lone surrogates, control characters inside strings.
"""

import json
import re
from typing import Any

import msgspec
import ujson
import yaml

MAX_YAML_BYTES = 2_000_000
"""Longest YAML text that is converted, in bytes; safe loading takes about a second per megabyte."""

_LINE_ENDS = bytes.maketrans(b"\n\r", b"  ")
_LINE_END = re.compile(rb"[\n\r]")


class DocumentError(ValueError):
    """A body that holds no measurement. `reason` is machine readable, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Envelope(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"")
    content: msgspec.Raw = msgspec.Raw(b"")


_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_envelope_decoder = msgspec.json.Decoder(_Envelope)
_any_decoder = msgspec.json.Decoder()


def decode_json(raw: bytes) -> Any:
    """Decode JSON text into Python values.

    Besides strict JSON this takes what the wire contract's own decoder, ujson, takes: NaN and infinities, long
    integers (up to 4300 digits), leading zeros, lone surrogates (escaped or encoded), raw control characters other than
    NUL inside strings, and duplicate keys (the last one wins).

    Raises:
        DocumentError: `empty_body`, `invalid_json` or `too_deep`.
    """
    if not raw.strip():
        raise DocumentError("empty_body", "The body is empty. Send a JSON object.")
    try:
        return _any_decoder.decode(raw)
    except RecursionError:
        raise DocumentError("too_deep", "The JSON is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return ujson.loads(raw)
    except ValueError as error:
        if "depth limit" in str(error):
            raise DocumentError("too_deep", "The JSON is nested too deeply.") from None
        raise DocumentError("invalid_json", f"The body is not valid JSON: {error}.") from None


def inner_document(body: bytes) -> bytes:
    """Return the measurement inside a submission as JSON text, exactly as it was sent.

    A body that is no envelope is a bare measurement and comes back whole. YAML content is converted to JSON.

    Raises:
        DocumentError: the reasons of `decode_json`, and `not_an_object`, `unknown_format`, `invalid_yaml`.
    """
    try:
        envelope = _envelope_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _inner_of_lenient(body)
    if not envelope.format or not envelope.content:
        return body.strip()
    form = decode_json(bytes(envelope.format))
    content = bytes(envelope.content)
    if isinstance(form, str) and form.lower() == "json":
        return content.strip()
    return _convert(form, decode_json(content))


def single_line(document: bytes) -> bytes:
    """Return the same JSON document on one line, as a jsonl object needs it.

    Line ends between tokens become blanks. In text that only the tolerant decoder accepts they may stand inside a
    string, so such a document is serialised anew.
    """
    if not _LINE_END.search(document):
        return document
    try:
        msgspec.json.decode(document, type=msgspec.Raw)
        _any_decoder.decode(document)
    except (msgspec.DecodeError, RecursionError):
        return encode_json(decode_json(document))
    return document.translate(_LINE_ENDS)


def encode_json(value: Any) -> bytes:
    """Serialise to compact ASCII JSON; dates become their ISO text, bytes are decoded with escapes."""
    return json.dumps(value, separators=(",", ":"), default=_plain).encode("ascii")


def _inner_of_lenient(body: bytes) -> bytes:
    value = decode_json(body)
    if not isinstance(value, dict):
        raise DocumentError("not_an_object", "The body is not a JSON object. Send the envelope or the measurement.")
    if "format" not in value or "content" not in value:
        return body.strip()
    form, content = value["format"], value["content"]
    if isinstance(form, str) and form.lower() == "json":
        return _content_slice(body) or encode_json(content)
    return _convert(form, content)


def _content_slice(body: bytes) -> bytes | None:
    """Return the bytes of the top-level `content` value in text that only the tolerant decoder takes.

    Works on Latin-1 text, where one character is one byte, so that positions found by the standard scanner are
    positions in the body.
    """
    text = body.decode("latin-1")
    decoder = json.JSONDecoder(strict=False)
    blank = re.compile(r"[ \t\n\r]*")

    def skip(position: int) -> int:
        match = blank.match(text, position)
        return match.end() if match else position

    found = None
    try:
        position = skip(0) + 1
        while True:
            key, position = decoder.raw_decode(text, skip(position))
            position = skip(position)
            start = skip(position + 1)
            _, end = decoder.raw_decode(text, start)
            if key == "content":
                found = body[start:end]  # no break: the last of duplicate keys wins, as in decode_json
            position = skip(end)
            if text[position] == "}":
                return found
            position += 1
    except (ValueError, IndexError, RecursionError):
        return None


def _convert(form: Any, content: Any) -> bytes:
    if not isinstance(form, str) or form.lower() != "yaml":
        raise DocumentError("unknown_format", "The envelope's format is neither json nor yaml.")
    if not isinstance(content, str) or len(content) > MAX_YAML_BYTES:
        raise DocumentError("invalid_yaml", f"YAML content must be text of at most {MAX_YAML_BYTES} characters.")
    return encode_json(load_yaml(content))


def load_yaml(text: str) -> Any:
    """Load YAML 1.1 text with the safe types only and without aliases.

    Raises:
        DocumentError: `invalid_yaml`.
    """
    try:
        for event in yaml.parse(text, Loader=_YAML_LOADER):
            if isinstance(event, yaml.AliasEvent):  # a few bytes of nested ones expand to gigabytes
                raise DocumentError("invalid_yaml", "The YAML content holds an alias, which is not accepted.")
        return yaml.load(text, Loader=_YAML_LOADER)  # noqa: S506 a safe loader, written in C where there is one
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        summary = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DocumentError("invalid_yaml", f"The YAML content cannot be read: {summary}.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)
