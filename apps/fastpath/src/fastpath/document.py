"""From a submitted body to the measurement inside it, and the decision not to keep it at all."""

import msgspec

from core.envelope import MAX_YAML_BYTES, DocumentError, decode_json, encode_json, load_yaml
from fastpath.shape import JsonObject, Measurement, ShapeError
from fastpath.skim import skim

UNVERIFIED = "u"
VERIFIED_VALUES = ("u", "t", "f")

NO_REPORT_ID = "no_report_id"
COUNTRY_UNKNOWN = "country_unknown"
NETWORK_UNKNOWN = "network_unknown"


class Document(msgspec.Struct, frozen=True):
    """A measurement and the mark that the receiving API put on the envelope."""

    measurement: Measurement
    is_verified: str


def open_document(body: bytes, *, skimmed: bool = False) -> Document:
    """Decode a body and take the measurement out of its envelope (the wire contract, 2.1 and 2.5).

    An object with both `format` and `content` is an envelope, whatever else it holds; any other object is a bare
    measurement. Envelopes are opened once. YAML content becomes the JSON that readers of the measurement see: dates are
    text, and keys are text.

    With `skimmed`, of a web_connectivity measurement only what scoring reads is decoded, where that is possible.

    Raises:
        DocumentError: with the reason `empty_body`, `invalid_json`, `too_deep`, `not_an_object`, `unknown_format` or
            `invalid_yaml`.
    """
    outer = (skim(body) if skimmed else None) or decode_json(body)
    if type(outer) is not dict:
        raise DocumentError("not_an_object", "The body is not a JSON object. Send the envelope or the measurement.")
    is_verified = outer.get("is_verified")
    if is_verified not in VERIFIED_VALUES:
        is_verified = UNVERIFIED
    if "content" not in outer or "format" not in outer:
        return Document(outer, is_verified)
    return Document(_content(outer), is_verified)


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
