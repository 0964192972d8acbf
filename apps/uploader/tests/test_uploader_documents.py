"""Odd documents: each stays readable byte for byte, and none of them stops the others."""

import gzip
import json

import pytest

from core.archive import MAX_DOCUMENT_BYTES
from core.envelope import DocumentError
from uploader import pack
from uploader.pack import lookup_fields


def lines_of(host) -> list[bytes]:
    [key] = [key for key in host.object_keys() if key.endswith(".jsonl.gz")]
    return gzip.decompress((host.objects / key).read_bytes()).split(b"\n")[:-1]


@pytest.mark.parametrize(
    "body",
    [
        b'{"format": "json",\n "content": {"report_id": "r",\n\n "n": 1}}',
        b'{"format": "json", "content": {"report_id": "r", "text": "raw\nline end"}}',
        b'{"report_id": "r",\r\n "bare": true}\n',
        b'{"format": "json", "content": {"report_id": "r", "x": NaN, "a": "\xed\xa0\x80",\n "b": 1}}',
    ],
    ids=["between tokens", "inside a string", "bare measurement", "lenient"],
)
def test_documents_with_line_ends_come_back_as_sent(host, body: bytes) -> None:
    host.receive(body)
    host.assert_readable()
    host.succeed()
    host.assert_readable()
    [row] = host.rows()
    assert row["report_id"] == "r"
    [line] = lines_of(host)
    if b"\n" in body.strip():
        assert row["raw_s3path"].endswith(".n1.0.tar.gz")
        assert row["raw_length"] > 0
    assert line.startswith(b"{")


@pytest.mark.parametrize(
    "body",
    [
        b'{"format": "json", "content": {"r": 1e5, "r": "\\u0000", "t": "\xc3\xbc", "big": 12345678901234567890123}}',
        b'{"format":"json","content":  {"spaces" :  [ ]  }  }',
        b'{"format": "json", "content": {"x": NaN, "lone": "\\ud800"}}',
        b'{"format": "yaml", "content": "report_id: r\\ntest_keys: {a: 1}\\n"}',
        b'{"format": "json", "content": [1, 2]}',
    ],
)
def test_documents_on_one_line_are_stored_as_sent(host, body: bytes) -> None:
    host.receive(body)
    host.succeed()
    host.assert_readable()
    [row] = host.rows()
    assert row["raw_s3path"] is None


@pytest.mark.parametrize("body", [b"not json", b"", b'{"format": "pdf", "content": "x"}', b"\xff\xfe\x00\x01\n\n"])
def test_a_body_without_document_keeps_its_place_and_stays_readable(host, body: bytes) -> None:
    host.receive(b'{"n": 1}')
    odd = host.receive(body)
    del host.sent[odd]
    host.receive(b'{"n": 2}')
    host.succeed()
    assert sorted(lines_of(host)) == [b'{"n": 1}', b'{"n": 2}', b"{}"]
    [row] = [row for row in host.rows() if row["measurement_uid"] == odd]
    assert lines_of(host)[row["linenum"]] == b"{}"
    assert row["report_id"] == "20240102T030000Z_webconnectivity_IT_1_n1_0123456789abcdef"
    found = host.reader.read(odd)
    assert found is not None
    assert (found.document, found.source, found.decoded) == (body, "store", False)
    assert host.metric("uploader_undecodable_total") == 1
    host.assert_readable()


def test_a_damaged_file_does_not_stop_the_others(host) -> None:
    uids = host.receive_many(3)
    path = host.spool.path("scored", uids[0])
    path.write_bytes(path.read_bytes()[:-3])
    del host.sent[uids[0]]
    assert "2 measurements archived in 1 batches" in host.succeed()
    host.assert_readable()
    assert host.metric("uploader_quarantined_total") == 1
    quarantined = host.spool.path("quarantine", uids[0])
    assert quarantined.exists()
    assert "holds" in quarantined.with_suffix(".reason").read_text()


def test_a_directory_of_damaged_files_only_ends_without_objects(host) -> None:
    [uid] = host.receive_many(1)
    host.spool.path("scored", uid).write_bytes(b"")
    host.succeed()
    assert host.object_keys() == []
    assert host.left() == []


def test_text_that_the_database_cannot_store_is_stored_without_it(host) -> None:
    host.receive(b'{"report_id": "a\\u0000b", "input": "c\\ud800d"}')
    host.succeed()
    [row] = host.rows()
    assert (row["report_id"], row["input"]) == ("a\ufffdb", "c\ufffdd")
    host.assert_readable()


def test_an_endless_input_is_stored(host) -> None:
    long = "https://example.com/" + "a" * 2_000_000
    host.receive(json.dumps({"input": long}).encode())
    host.succeed()
    assert host.rows()[0]["input"] == long
    host.assert_readable()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b'{"report_id": "r", "input": "i"}', ("r", "i")),
        (b'{"report_id": null, "input": null}', ("", "")),
        (b"{}", ("", "")),
        (b'{"report_id": 5, "input": {"a": 1}}', ("", "")),
        (b'{"report_id": "r", "input": ["a", "b"]}', ("r", "")),
        (b'{"test_name": "meek_fronted_requests_test", "input": ["a", "b"]}', ("", "{a,b}")),
        (b'{"test_name": "meek_fronted_requests_test", "input": ["a", 1]}', ("", "")),
        (b'{"test_name": "meek_fronted_requests_test", "input": []}', ("", "")),
        (b'{"test_name": "meek_fronted_requests_test", "input": "a"}', ("", "a")),
        (b'{"report_id": "r", "x": NaN, "input": "i"}', ("r", "i")),
        (b"[1]", ("", "")),
        (b"NaN", ("", "")),
    ],
)
def test_lookup_fields(document: bytes, expected: tuple[str, str]) -> None:
    assert lookup_fields(document) == expected


def test_lookup_fields_of_no_document() -> None:
    with pytest.raises(DocumentError):
        lookup_fields(b"{")


def test_a_line_that_grows_over_the_limit_is_replaced(host, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Putting a document on one line may make it longer; its body then serves."""
    uid = host.receive('{"n":\n"ÜÜÜÜ\n"}'.encode())
    monkeypatch.setattr("core.archive.MAX_DOCUMENT_BYTES", 20)
    assert MAX_DOCUMENT_BYTES == 64 * 1024 * 1024
    targets = pack.Targets(tmp_path / "j", tmp_path / "p", tmp_path / "r")
    batch = pack.pack(host.spool, [uid], targets, None, lambda *_: None)
    assert batch.uids == [uid]
    assert gzip.decompress((tmp_path / "j").read_bytes()) == b"{}\n"
    [row] = pack.read_rows(tmp_path / "r")
    assert row.raw_length is not None


def test_a_body_over_the_limit_is_set_aside(host, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = host.receive(b'{"n": 1}')
    monkeypatch.setattr(pack, "MAX_DOCUMENT_BYTES", 5)
    aside: list[tuple[str, str]] = []
    targets = pack.Targets(tmp_path / "j", tmp_path / "p", tmp_path / "r")
    batch = pack.pack(host.spool, [uid], targets, None, lambda *what: aside.append(what))
    assert batch.uids == []
    assert aside == [(uid, "The body has 8 bytes; at most 5 can be archived.")]
