"""From a submitted body to the measurement inside it, and the decision not to keep it at all."""

import re

import msgspec

from core.envelope import MAX_YAML_BYTES, DocumentError, decode_json, encode_json, load_yaml
from fastpath.shape import JsonObject, Measurement, ShapeError
from fastpath.skim import skim

UNVERIFIED = "u"
VERIFIED_VALUES = ("u", "t", "f")

NO_REPORT_ID = "no_report_id"
COUNTRY_UNKNOWN = "country_unknown"
NETWORK_UNKNOWN = "network_unknown"

_REPORT_ID = re.compile(rb"""report_id["']?\s{0,8}[:=]\s{0,8}["']?([0-9A-Za-z_]{10,150})""", re.ASCII)


class Document(msgspec.Struct, frozen=True):
    """A measurement and the mark that the receiving API put on the envelope."""

    measurement: Measurement
    is_verified: str


def open_document(body: bytes, uid: str = "") -> Document:
    """Decode a body and take the measurement out of its envelope (the wire contract, 2.1 and 2.5).

    An object with both `format` and `content` is an envelope, whatever else it holds; any other object is a bare
    measurement. Envelopes are opened once. YAML content becomes the JSON that readers of the measurement see: dates are
    text, and keys are text.

    Where the `uid` tells a test that `skim` knows, only what scoring reads is decoded, if that is possible.

    Raises:
        DocumentError: with the reason `empty_body`, `invalid_json`, `too_deep`, `not_an_object`, `unknown_format` or
            `invalid_yaml`.
    """
    parts = uid.split("_", 3)
    skimmed = skim(body, parts[2]) if len(parts) == 4 else None
    if skimmed is not None:
        return Document(skimmed["content"], _verified(skimmed))
    outer = decode_json(body)
    if type(outer) is not dict:
        raise DocumentError("not_an_object", "The body is not a JSON object. Send the envelope or the measurement.")
    if "content" not in outer or "format" not in outer:
        return Document(outer, _verified(outer))
    return Document(_content(outer), _verified(outer))


def salvage(body: bytes) -> Document | None:
    """Return what identifies a measurement in a body that `open_document` refuses; None where nothing is found.

    That is the content of an envelope of an unknown format, JSON sent as text, or at least the report id in a body that
    is no JSON at all.
    """
    try:
        outer = decode_json(body)
        content = outer.get("content") if type(outer) is dict and "format" in outer else outer
        if type(content) is str:
            content = decode_json(content.encode("utf-8", "surrogatepass"))
    except (DocumentError, RecursionError, MemoryError):  # what made it unreadable may do so again
        content = None
    if type(content) is dict:
        return Document(content, _verified(outer) if type(outer) is dict else UNVERIFIED)
    found = _REPORT_ID.search(body)
    return Document({"report_id": found[1].decode()}, UNVERIFIED) if found else None


def discard_reason(measurement: Measurement) -> str | None:
    """Return why a measurement is not to be stored on purpose; None when it is to be scored (2.1, step 5).

    Raises:
        ShapeError: country or network are not text.
    """
    if measurement.get("report_id") is None:
        return NO_REPORT_ID
    country = measurement.get("probe_cc", "")
    if type(country) is not str:
        raise ShapeError("probe_cc")
    if country.upper() == "ZZ":
        return COUNTRY_UNKNOWN
    network = measurement.get("probe_asn", "")
    if type(network) is not str:
        raise ShapeError("probe_asn")
    if network.upper() == "AS0":
        return NETWORK_UNKNOWN
    return None


def _verified(outer: JsonObject) -> str:
    value = outer.get("is_verified")
    return str(value) if value in VERIFIED_VALUES else UNVERIFIED


def _content(envelope: JsonObject) -> Measurement:
    form, content = envelope["format"], envelope["content"]
    kind = form.lower() if type(form) is str else None
    if kind == "yaml":
        content = _yaml_content(content)
    elif kind != "json":
        raise DocumentError("unknown_format", "The envelope's format is neither json nor yaml. Send one of them.")
    if type(content) is not dict:
        raise DocumentError("not_an_object", "The envelope's content is not an object. Send the measurement.")
    return content


def _yaml_content(content: object) -> object:
    if type(content) is not str or len(content) > MAX_YAML_BYTES:
        raise DocumentError("invalid_yaml", f"YAML content must be text of at most {MAX_YAML_BYTES} characters.")
    try:
        return decode_json(encode_json(load_yaml(content)))
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError("invalid_yaml", "The YAML content holds keys or nesting that JSON cannot.") from None
