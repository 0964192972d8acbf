"""submit_measurement: what is stored, what is answered, what is refused."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from api import submit
from core.envelope import inner_document
from core.received import received_key

PATH = "/api/v1/submit_measurement"
CONTENT = '{ "probe_cc": "IT",\n "probe_asn":"AS30722", "test_name":"web_connectivity", "x":1.50, "ü":"\\u00e9" }'
WRAPPER_KEYS = {"content", "format", "protocol_version", "manifest_version", "is_verified"}


def post(api: Any, value: object, **headers: str) -> Any:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return api.http.post(PATH, content=body, headers={"content-type": "application/json", **headers})


def submission(**changes: object) -> dict[str, object]:
    return {"format": "json", "content": CONTENT, **changes}


def stored(api: Any, reply: dict[str, Any]) -> Any:
    record = api.spool.read(reply["measurement_uid"])
    assert record is not None
    return record


def test_reply_and_stored_wrapper(api: Any) -> None:
    response = post(api, submission(nym=None, zkp_request=None, manifest_version=None, protocol_version=None))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    reply = response.json()
    rid, uid = reply.pop("report_id"), reply["measurement_uid"]
    assert re.fullmatch(r"20\d{6}T\d{6}Z_webconnectivity_IT_30722_n1_[0-9A-Za-z]{16}", rid)
    assert re.fullmatch(r"20\d{12}\.\d{6}_IT_webconnectivity_[0-9a-f]{16}", uid)
    assert reply == {
        "measurement_uid": uid,
        "verification_status": "unverified",
        "submit_response": None,
        "protocol_version": "1.0.0",
        "error": None,
    }
    record = stored(api, {"measurement_uid": uid})
    assert record.report_id == rid
    assert uid.endswith(hashlib.sha512(record.body).hexdigest()[:16])
    wrapper = json.loads(record.body)
    assert set(wrapper) == WRAPPER_KEYS
    assert (wrapper["format"], wrapper["is_verified"]) == ("json", "u")
    assert (wrapper["protocol_version"], wrapper["manifest_version"]) == (None, None)
    assert inner_document(record.body) == f'{{"report_id":"{rid}",'.encode() + CONTENT[2:].encode()


def test_content_as_an_object(api: Any) -> None:
    body = b'{"format":"json","content":' + CONTENT.encode() + b"}"
    response = post(api, body)
    rid = response.json()["report_id"]
    assert (
        inner_document(stored(api, response.json()).body) == f'{{"report_id":"{rid}",'.encode() + CONTENT[2:].encode()
    )


def test_a_report_id_in_the_content_is_replaced(api: Any) -> None:
    content = '{"probe_cc":"IT","report_id":"old", "probe_asn":"AS1","test_name":"ndt","n":1.0e2,"report_id":"older"}'
    reply = post(api, submission(content=content)).json()
    document = inner_document(stored(api, reply).body)
    assert json.loads(document)["report_id"] == reply["report_id"]
    assert document.count(b"report_id") == 1
    assert b'"n":1.0e2' in document


@pytest.mark.parametrize("extra", ['"n":NaN', '"s":"\\ud800"', '"s":"\x01"', '"report_id":"x","n":Infinity'])
def test_what_only_the_tolerant_decoder_takes(api: Any, extra: str) -> None:
    content = f'{{"probe_cc":"IT","probe_asn":"AS1","test_name":"ndt",{extra}}}'
    response = post(api, submission(content=content))
    assert response.status_code == 200, response.text
    document = inner_document(stored(api, response.json()).body)
    decoded = json.loads(document.decode("utf-8"), strict=False)
    assert decoded["report_id"] == response.json()["report_id"]
    assert set(decoded) >= {"probe_cc", "test_name"}


def test_escaped_surrogates_in_the_outer_text(api: Any) -> None:
    body = b'{"format":"json","content":"{\\"probe_cc\\":\\"IT\\",\\"probe_asn\\":\\"AS1\\",\\"test_name\\":\\"ndt\\",'
    body += b'\\"s\\":\\"\\ud800\\"}"}'
    response = post(api, body)
    assert response.status_code == 200, response.text
    assert json.loads(inner_document(stored(api, response.json()).body))["s"] == "\ud800"


@pytest.mark.parametrize(
    "given",
    [{"nym": "abc"}, {"zkp_request": "x"}, {"manifest_version": "1"}, {"nym": "a", "protocol_version": "9.9.9"}],
)
def test_credentials_without_a_manifest(api: Any, given: dict[str, str]) -> None:
    response = post(api, submission(**given))
    assert response.status_code == 200
    reply = response.json()
    assert (reply["verification_status"], reply["error"]) == ("unverified", "manifest_not_found")
    assert reply["submit_response"] is None
    assert reply["protocol_version"] == given.get("protocol_version", "1.0.0")
    body = stored(api, reply).body
    wrapper = json.loads(body)
    assert set(wrapper) == WRAPPER_KEYS
    assert wrapper["manifest_version"] == given.get("manifest_version")
    assert b"nym" not in body
    assert b"zkp" not in body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "missing_field"),
        (b'{"format":"json"}', "missing_field"),
        (b'{"content":"{}"}', "missing_field"),
        (b'{"format":"json","content":null}', "missing_field"),
        (b'{"format":"yaml","content":"{}"}', "unknown_format"),
        (b'{"format":1,"content":"{}"}', "unknown_format"),
        (b'{"format":"json","content":"not json"}', None),
        (b'{"format":"json","content":""}', None),
        (b'{"format":"json","content":"[]"}', "content_not_an_object"),
        (b'{"format":"json","content":[]}', "content_not_an_object"),
        (b'{"format":"json","content":5}', "content_not_an_object"),
        (b'{"format":"json","content":"{}"}', "bad_metadata"),
        (b'{"format":"json","content":{"a":"\xff"}}', None),
        (b'{"format":"json","content":"' + b"[" * 100_000 + b'"}', None),
        (b'{"format":"json","content":' + b'{"a":' * 100_000 + b"}", None),
    ],
)
def test_bad_submissions(api: Any, body: bytes, code: str | None) -> None:
    before = len(api.files())
    response = post(api, body)
    assert response.status_code == 400, response.text
    reply = response.json()
    assert isinstance(reply["error"], str)
    assert isinstance(reply["detail"]["error"], str) or code is None
    if code is not None:
        assert reply["detail"]["error"] == code
    assert len(api.files()) == before


@pytest.mark.parametrize(
    ("changes", "code", "reasons"),
    [
        ({"probe_cc": "it"}, "bad_metadata", ["bad_cc"]),
        ({"probe_cc": "ITA"}, "bad_metadata", ["bad_cc"]),
        ({"probe_cc": None}, "bad_metadata", ["bad_cc"]),
        ({"probe_cc": "\ud800\ud800"}, "bad_metadata", ["bad_cc"]),
        ({"test_name": "x"}, "bad_metadata", ["tn_len"]),
        ({"test_name": "x" * 31}, "bad_metadata", ["tn_len"]),
        ({"test_name": "NDT"}, "bad_metadata", ["tn_no_lower"]),
        ({"test_name": "../etc"}, "bad_metadata", ["tn_no_lower"]),
        ({"probe_asn": "AS"}, "bad_metadata", ["asn_len"]),
        ({"probe_asn": "12345"}, "bad_metadata", ["asn_no_as_prefix"]),
        ({"probe_asn": "AS01"}, "bad_metadata", ["asn_leading_zero"]),
        ({"probe_asn": 1, "probe_cc": 1, "test_name": 1}, "bad_metadata", ["bad_cc", "tn_len", "tn_no_lower"]),
        ({"probe_asn": "AS0"}, "asn_0", []),
        ({"probe_asn": "AS1x"}, "asn_invalid", []),
        ({"probe_asn": "AS١٢"}, "asn_invalid", []),
        ({"probe_cc": "ZZ"}, "cc_zz", []),
    ],
)
def test_metadata_check(api: Any, changes: dict[str, object], code: str, reasons: list[str]) -> None:
    before = len(api.files())
    response = post(api, submission(content=json.dumps({**json.loads(CONTENT), **changes})))
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert detail["error"] == code
    assert response.json()["error"].startswith(code)
    if reasons:
        assert detail["message"].startswith("Errors: [")
        assert all(f"'{reason}'" in detail["message"] for reason in reasons)
    assert len(api.files()) == before


def test_content_types(api: Any) -> None:
    body = json.dumps(submission()).encode()
    assert post(api, body, **{"content-type": "text/plain"}).status_code == 415
    assert post(api, body, **{"content-type": "application/json; charset=utf-8"}).status_code == 200
    assert api.http.post(PATH, content=body).status_code == 200


def test_every_measurement_has_a_report_of_its_own(api: Any) -> None:
    replies = [post(api, submission(content={**json.loads(CONTENT), "number": number})).json() for number in range(3)]
    assert len({reply["report_id"] for reply in replies}) == 3
    assert len({reply["measurement_uid"] for reply in replies}) == 3


def test_no_manifest(api: Any) -> None:
    response = api.http.get("/api/v1/manifest")
    assert response.status_code == 404
    assert response.json()["detail"]["error"] == "manifest_not_found"
    response = api.http.post("/api/v1/sign_credential", json={})
    assert (response.status_code, response.json()["detail"]["error"]) == (404, "manifest_not_found")


_BITS = st.sampled_from(
    [*'abc \\"/', "\n", "\u00e9", "\u4e2d", "\U0001f600", "\u2028", "uD83D", "\\uD83D", "plain text without escapes"]
)


@given(st.lists(_BITS, max_size=60).map("".join), st.booleans(), st.integers(1, 9))
@example(text="\U0001f600" * 20, escaped=True, piece=1)
@example(text="\\" * 50, escaped=False, piece=1)
@example(text="\\uD83D" * 20 + "\U0001f600", escaped=True, piece=1)
def test_text_decoded_in_pieces_is_the_text(text: str, escaped: bool, piece: int) -> None:
    given_text = json.dumps(text, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submit, "_TEXT_PIECE", piece)
        assert submit.unquoted(memoryview(given_text)) == text.encode()


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"aaaaaaa\\ud83d aaaaaaa\\ude00"', b'"\xff"', b'"a\x01b"', b'"\\x"'])
def test_text_that_is_not_strict_is_refused_in_pieces_too(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(submit, "_TEXT_PIECE", 1)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        submit.unquoted(memoryview(text))


def test_key_is_that_of_the_whole_envelope() -> None:
    envelope = b"".join(submit.wrap([CONTENT.encode()], None, "1.0.0"))
    assert json.loads(envelope)["content"] == json.loads(CONTENT)
    assert submit.submission_key(CONTENT.encode(), None, "1.0.0") == received_key("submit_measurement", envelope)


def memory(pid: int) -> dict[str, int]:
    """Return memory of a process in MB by its name in the kernel."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


@pytest.mark.parametrize("route", [PATH, "/report/20240101T000000Z_ndt_IE_34245_n1_abcdefghijklmnop"])
def test_largest_measurements_do_not_fill_the_memory(start_api: Callable[..., Any], route: str) -> None:
    api = start_api("host=/nonexistent")
    assert post(api, submission()).status_code == 200
    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split()
    content = {**json.loads(CONTENT), "report_id": "x", "face": "\U0001f600", "filler": ["x" * 1000] * 57_000}
    text: object = content
    if route == PATH:
        text = json.dumps(content, ensure_ascii=False)
    body = json.dumps({"format": "json", "content": text}, ensure_ascii=False).encode()
    before = {}
    for child in children:
        Path(f"/proc/{child}/clear_refs").write_text("5")  # the highest mark begins anew
        before[child] = memory(int(child))["VmRSS"]
    headers = {"content-type": "application/json", "content-encoding": "zstd"}
    response = api.http.post(route, content=zstandard.compress(body), headers=headers)
    assert response.status_code == 200, response.text
    grown = max(memory(int(child))["VmHWM"] - before[child] for child in children)
    size = len(body) >> 20
    assert size < grown < 4 * size


def test_countless_members_are_refused(api: Any) -> None:
    content = {**json.loads(CONTENT), "report_id": "x"}
    most = {f"m{number}": 1 for number in range(10_000 - len(content))}
    assert post(api, submission(content=json.dumps({**most, **content}))).status_code == 200
    response = post(api, submission(content=json.dumps({**most, **content, "one": "more"})))
    assert response.status_code == 400
    assert response.json()["detail"]["error"] == "too_many_members"
