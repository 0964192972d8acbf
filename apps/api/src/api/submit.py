"""`submit_measurement`: one request per measurement, the server makes the report id (what current probes use).

This server verifies no anonymous credentials: it answers 404 on the manifest, so that probes submit without a proof,
and stores what comes with one as unverified.

Measurements may have 64 MB, so they are not copied around: a worker grows by some 190 MB for a body of 57 MB. Of the
body, the document in it and the envelope to store, two exist at any moment.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from api import metrics
from api.documents import check_utf8, decode_lenient
from api.errors import ApiError
from api.intake import Arrival
from api.probe_place import compare_place
from api.responses import NO_CACHE, json_response
from api.services import services
from core.envelope import encode_json
from core.ids import measurement_uid_of, new_report_id
from core.received import received_hash

ROUTE = "submit_measurement"
PROTOCOL_VERSION = "1.0.0"
"""Answered when the probe names none; no protocol of credentials is spoken here."""

_CREDENTIAL_FIELDS = ("nym", "zkp_request", "manifest_version", "protocol_version")
_ASN = re.compile(r"AS[0-9]{1,10}", re.ASCII)
_CC = re.compile(r"[A-Z0-9]{2}", re.ASCII)
_TEST_NAME = re.compile(r"[a-z0-9_]+", re.ASCII)
_CONTENT = "The content is not JSON text of an object."
_FORMS = "In the content, probe_cc must be like IT, probe_asn like AS30722, and test_name like web_connectivity."
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK = b" \t\n\r"
_BLANKS = re.compile(rb"[ \t\n\r]*")
_MAX_MEMBERS = 10_000  # of the content; probes send some thirty
_TEXT_PIECE = 1024 * 1024  # bytes of a JSON string that are decoded at once
# Where JSON text in a string can be divided: in no escape, in no pair of escaped surrogates, in no character of UTF-8.
_DIVIDE = re.compile(rb"[^\\]{6}(?![\x80-\xbf])|(?<!\\)(?<!\\u[dD][89abAB][0-9a-fA-F]{2})(?=\\)")

Text = bytes | memoryview

blueprint = Blueprint("submit", __name__)


class _Submission(msgspec.Struct):
    format: Any = None
    content: msgspec.Raw = msgspec.Raw(b"")
    nym: Any = None
    zkp_request: Any = None
    manifest_version: Any = None
    protocol_version: Any = None


class _Metadata(msgspec.Struct):
    probe_cc: Any = None
    probe_asn: Any = None
    test_name: Any = None


_submission_decoder = msgspec.json.Decoder(_Submission)
_metadata_decoder = msgspec.json.Decoder(_Metadata)


class _Name(str):
    """The name of a member; a type of its own, so that names are counted while they are decoded."""

    __slots__ = ()


@blueprint.get("/api/v1/manifest")
def manifest() -> Response:
    """There is no manifest: probes take this to mean that credentials are not in use."""
    raise refusal(404, "manifest_not_found", "This server does not use credentials. Submit without them.")


@blueprint.post("/api/v1/sign_credential")
def sign_credential() -> Response:
    """No manifest, hence nothing to sign."""
    raise refusal(404, "manifest_not_found", "This server does not use credentials. Submit without them.")


@blueprint.post("/api/v1/submit_measurement")
def submit_measurement() -> Response:
    """Store one measurement durably under a report id of its own."""
    _check_content_type()
    parts = services()
    with parts.intake.body(request, ROUTE) as body:
        submission = _decode(body)
        document = _content(submission)
        # The body goes, unless the document is a part of it.
        del body
        submission.content = msgspec.Raw(b"")
        metadata = _metadata(document)
        metrics.MEASUREMENTS_RECEIVED.labels(ROUTE).inc()
        cc, asn, test_name = check_metadata(metadata.probe_cc, metadata.probe_asn, metadata.test_name)
        versions = (submission.manifest_version, submission.protocol_version)
        key = submission_key(document, *versions)

        def arrival_at(received_at: datetime) -> Arrival:
            # Made of the key, so that a submission sent again gets the report id it had.
            report_id = new_report_id(received_at, test_name, cc, asn, parts.settings.collector_id, chance=key)
            wrapper = b"".join(wrap(with_report_id(document, report_id), *versions))
            uid = measurement_uid_of(received_at, cc, test_name, hashlib.sha512(wrapper).hexdigest())
            return Arrival(uid, report_id, wrapper)

        stored = parts.intake.store(key, arrival_at, route=ROUTE, own_report=True)
    compare_place(cc, asn)
    protocol = submission.protocol_version
    reply = {
        "measurement_uid": stored.uid,
        "verification_status": "unverified",
        "submit_response": None,
        "protocol_version": protocol if isinstance(protocol, str) else PROTOCOL_VERSION,
        "error": "manifest_not_found" if _has_credentials(submission) else None,
        "report_id": stored.report_id,
    }
    return json_response(reply, cache=NO_CACHE)


def refusal(status: int, code: str, message: str | None = None, *, hint: str | None = None) -> ApiError:
    """Return an error in both shapes clients know: `detail.error` (typed) and `error` (plain)."""
    detail = {"error": code} if message is None else {"error": code, "message": message}
    body: dict[str, object] = {"detail": detail} if hint is None else {"detail": detail, "hint": hint}
    return ApiError(status, code if message is None else f"{code}: {message}", body=body)


def check_metadata(probe_cc: object, probe_asn: object, name: object) -> tuple[str, int, str]:
    """Return country code, network number and test name of a measurement, each as found in its content.

    Raises:
        ApiError: 400 `bad_metadata` with every reason, or `asn_0`, `asn_invalid`, `cc_zz`.
    """
    cc, asn, test_name = _text(probe_cc), _text(probe_asn), _text(name)
    reasons = []
    if not _CC.fullmatch(cc):
        reasons.append("bad_cc")
    squeezed = len(test_name.replace("_", ""))
    if not 2 <= len(test_name) <= 30 or not 2 <= squeezed <= 29:
        reasons.append("tn_len")
    if not _TEST_NAME.fullmatch(test_name):
        reasons.append("tn_no_lower")
    if not 3 <= len(asn) <= 12:
        reasons.append("asn_len")
    if not asn.startswith("AS"):
        reasons.append("asn_no_as_prefix")
    if asn.startswith("AS0") and asn != "AS0":
        reasons.append("asn_leading_zero")
    if reasons:
        raise refusal(400, "bad_metadata", f"Errors: {reasons}", hint=_FORMS)
    if asn == "AS0":
        raise refusal(400, "asn_0", hint="probe_asn in the content must not be AS0.")
    if not _ASN.fullmatch(asn):
        raise refusal(400, "asn_invalid", hint=_FORMS)
    if cc == "ZZ":
        raise refusal(400, "cc_zz", hint="probe_cc in the content must not be ZZ.")
    return cc, int(asn[2:]), test_name


def submission_key(document: Text, manifest_version: Any, protocol_version: Any) -> bytes:
    """Return the key by which a submission is known again: of its envelope without a report id of ours."""
    digest = received_hash(ROUTE)
    for piece in wrap([document], manifest_version, protocol_version):
        digest.update(piece)
    return digest.digest()


def with_report_id(document: Text, report_id: str) -> list[Text]:
    """Return the measurement with its `report_id` set, in pieces.

    Without one in it the text is inserted after the opening brace and every other byte stays. With one, each other
    member keeps its bytes. Only text that just the tolerant decoder takes is serialised anew.
    """
    try:
        members = _members(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = decode_lenient(bytes(document))
        if "report_id" in value:
            return [encode_json({**value, "report_id": report_id})]
    else:
        if "report_id" in members:
            members[_Name("report_id")] = msgspec.Raw(msgspec.json.encode(report_id))
            return _joined(members)
    view = memoryview(document)
    rest = _without_blanks(_without_blanks(view)[1:])
    comma = b"" if bytes(rest[:1]) == b"}" else b","
    return [b'{"report_id":', msgspec.json.encode(report_id), comma, rest]


def wrap(document: Sequence[Text], manifest_version: Any, protocol_version: Any) -> list[Text]:
    """Return the stored envelope in pieces: five keys, the content byte for byte; nym and proof are left out."""
    rest = {
        "format": "json",
        "is_verified": "u",
        "manifest_version": manifest_version,
        "protocol_version": protocol_version,
    }
    return [b'{"content":', *document, b",", encode_json(rest)[1:]]


def _check_content_type() -> None:
    declared = request.mimetype
    if declared and declared != "application/json" and not declared.endswith("+json"):
        metrics.MEASUREMENTS_DISCARDED.labels(ROUTE, "status_415").inc()
        raise refusal(415, "unsupported_media_type", "Send the submission as application/json.")


def _decode(body: bytes) -> _Submission:
    try:
        return _submission_decoder.decode(body)
    except msgspec.ValidationError:
        raise refusal(400, "not_an_object", "The body is not a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    value = _tolerant(body)
    if not isinstance(value, dict):
        raise refusal(400, "not_an_object", "The body is not a JSON object.")
    content = value.get("content")
    raw = msgspec.Raw(b"") if content is None else msgspec.Raw(encode_json(content))
    return _Submission(
        format=value.get("format"), content=raw, **{name: value.get(name) for name in _CREDENTIAL_FIELDS}
    )


def _members(document: Text) -> dict[_Name, msgspec.Raw]:
    """Return the members of an object. Raises ApiError 400 when they are so many that they would fill the memory."""
    count = 0

    def name(_type: type, text: str) -> _Name:
        nonlocal count
        count += 1
        if count > _MAX_MEMBERS:
            raise refusal(400, "too_many_members", f"The content has more than {_MAX_MEMBERS} members.")
        return _Name(text)

    return msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=name).decode(document)


def _joined(members: dict[_Name, msgspec.Raw]) -> list[Text]:
    """Return the JSON text of an object in pieces, each value byte for byte."""
    pieces: list[Text] = []
    for name, value in members.items():
        pieces += (b"," if pieces else b"{", msgspec.json.encode(str(name)), b":", memoryview(value))
    return [*pieces, b"}"]


def _without_blanks(text: memoryview) -> memoryview:
    match = _BLANKS.match(text)
    return text[match.end() :] if match else text


def _content(submission: _Submission) -> Text:
    """Return the measurement's JSON text, which may come as an object (then a part of the body) or as a string."""
    raw = memoryview(submission.content)
    if submission.format is None or bytes(raw[:5]) in (b"", b"null"):
        raise refusal(400, "missing_field", "Both format and content are needed.")
    if not isinstance(submission.format, str) or submission.format.lower() != "json":
        raise refusal(400, "unknown_format", "The format must be json.")
    if bytes(raw[:1]) != b'"':
        return raw
    try:
        return unquoted(raw).strip(_BLANK)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = _tolerant(raw)
    # A lone surrogate has no place in UTF-8; inside JSON text its escape means the same.
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode().strip(_BLANK)


def unquoted(text: memoryview) -> bytes:
    """Return in UTF-8 what a JSON string with its quotes says.

    It is decoded in pieces, since the whole as text may need four times as much memory.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: it is no strict JSON, as with a lone surrogate.
    """
    found = io.BytesIO()
    position, end = 1, len(text) - 1
    while position < end:
        match = _DIVIDE.search(text, min(position + _TEXT_PIECE, end), end)
        after = match.end() if match else end
        found.write(msgspec.json.decode(b'"%b"' % bytes(text[position:after]), type=str).encode())
        position = after
    return found.getvalue()


def _metadata(document: Text) -> _Metadata:
    """Return country, network and test name of the content, checking that it is JSON text of an object."""
    try:
        check_utf8(document)
        return _metadata_decoder.decode(document)
    except msgspec.ValidationError:
        fields = None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = _tolerant(document, hint=_CONTENT)
    if not isinstance(fields, dict):
        raise refusal(400, "content_not_an_object", _CONTENT)
    return _Metadata(**{name: fields.get(name) for name in _Metadata.__struct_fields__})


def _tolerant(raw: Text, *, hint: str | None = None) -> Any:
    try:
        return decode_lenient(bytes(raw))
    except ApiError as error:
        if error.status != 400:
            raise
        raise refusal(400, str(error), hint=hint) from None


def _has_credentials(submission: _Submission) -> bool:
    return any(getattr(submission, name) is not None for name in _CREDENTIAL_FIELDS)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
