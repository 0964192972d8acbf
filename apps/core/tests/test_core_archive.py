"""Archives: ordinary tools read them, one range is one document, bytes are reproducible, hostile input is bounded."""

import gzip
import io
import subprocess
import tarfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import archive
from core.archive import ArchiveError, JsonlWriter, Member, PostcanWriter
from core.ids import new_measurement_uid

LINES = [b'{"a": 1}', b"", b'{"b": "' + b"x" * 100_000 + b'"}', '{"ü": "\u2028"}'.encode()]


def uid(number: int, body: bytes = b"", test_name: str = "webconnectivity") -> str:
    return new_measurement_uid(datetime(2024, 1, 2, 3, 4, 5, number, tzinfo=UTC), "IT", test_name, body)


def jsonl(lines: list[bytes]) -> tuple[bytes, list[Member]]:
    file = io.BytesIO()
    writer = JsonlWriter(file)
    members = [writer.add(line) for line in lines]
    assert writer.size == len(file.getvalue())
    return file.getvalue(), members


def postcan(bodies: list[bytes]) -> tuple[bytes, list[Member]]:
    file = io.BytesIO()
    writer = PostcanWriter(file)
    members = [writer.add(uid(number, body), body) for number, body in enumerate(bodies)]
    writer.finish()
    assert writer.size == len(file.getvalue())
    return file.getvalue(), members


def part(data: bytes, member: Member) -> bytes:
    return data[member.offset : member.offset + member.length]


def test_each_member_of_a_jsonl_object_is_one_line() -> None:
    data, members = jsonl(LINES)
    assert gzip.decompress(data) == b"".join(line + b"\n" for line in LINES)
    for line, member in zip(LINES, members, strict=True):
        assert gzip.decompress(part(data, member)) == line + b"\n"
        assert archive.read_line(part(data, member)) == line
    assert members[0].offset == 0
    assert members[-1].offset + members[-1].length == len(data)


def test_zcat_gives_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(jsonl(LINES)[0])
    shown = subprocess.run(["zcat", str(path)], capture_output=True, check=True)
    assert shown.stdout == b"".join(line + b"\n" for line in LINES)
    assert shown.stderr == b""


def test_a_line_with_a_line_end_is_refused() -> None:
    with pytest.raises(ArchiveError, match="line end"):
        jsonl([b"{\n}"])


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8191, 300_000])
def test_one_range_of_a_postcan_is_one_body(size: int) -> None:
    bodies = [b"first", b"z" * size, b"last"]
    data, members = postcan(bodies)
    for number, (body, member) in enumerate(zip(bodies, members, strict=True)):
        assert archive.read_body(part(data, member), uid(number, body)) == body


def test_tar_and_python_read_a_postcan(tmp_path: Path) -> None:
    bodies = [b"one", b"", b"three" * 1000]
    path = tmp_path / "x.tar.gz"
    path.write_bytes(postcan(bodies)[0])
    names = [f"incoming/2024010203_IT_webconnectivity/{uid(n, body)}.post" for n, body in enumerate(bodies)]

    listed = subprocess.run(["tar", "tzf", str(path)], capture_output=True, check=True, text=True)
    assert listed.stdout.split() == names
    assert listed.stderr == ""
    subprocess.run(["tar", "xzf", str(path), "-C", str(tmp_path)], check=True)
    assert [(tmp_path / name).read_bytes() for name in names] == bodies

    with tarfile.open(path) as tar:
        entries = tar.getmembers()
        assert [entry.name for entry in entries] == names
        for entry, body in zip(entries, bodies, strict=True):
            assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, "", "", 0o644)
            assert entry.mtime == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
            extracted = tar.extractfile(entry)
            assert extracted is not None
            assert extracted.read() == body


def test_the_longest_names_fit(tmp_path: Path) -> None:
    name = uid(1, b"x", test_name="n" * 29)
    file = io.BytesIO()
    writer = PostcanWriter(file)
    writer.add(name, b"x")
    writer.finish()
    with tarfile.open(fileobj=io.BytesIO(file.getvalue()), mode="r:gz") as tar:
        assert tar.getnames() == [archive.entry_name(name)]
    assert len(file.getvalue()) > 0
    assert len(zlib.decompressobj(31).decompress(file.getvalue())) == 1024


def test_the_unpacked_tar_is_whole_records_ending_in_two_empty_blocks() -> None:
    for count in range(1, 25):
        unpacked = gzip.decompress(postcan([b"x"] * count)[0])
        assert len(unpacked) % 10240 == 0
        assert unpacked[count * 1024 :] == bytes(len(unpacked) - count * 1024)
        assert len(unpacked) - count * 1024 >= 1024


def test_headers_carry_no_time_name_or_host() -> None:
    data, members = postcan([b"body"])
    assert data[:10] == bytes.fromhex("1f8b08000000000000ff")
    assert archive.read_member(part(data, members[0]))[265:345] == bytes(80)


def test_archives_match_the_bytes_recorded_for_them() -> None:
    """Framing only: these are the decompressed bytes, which do not depend on the zlib in use."""
    tar = gzip.decompress(postcan([b"abc"])[0])
    name = uid(0, b"abc")
    assert name == "20240102030405.000000_IT_webconnectivity_ddaf35a193617aba"
    expected = (
        f"{name}.post".encode().ljust(100, b"\0")
        + b"0000644\x000000000\x000000000\x0000000000003\x0014544676445\0"
        + tar[148:156]
        + b"0".ljust(101, b"\0")
        + b"ustar\x0000".ljust(88, b"\0")
        + b"incoming/2024010203_IT_webconnectivity".ljust(167, b"\0")
    )
    assert tar[:512] == expected
    assert int(tar[148:154], 8) == sum(tar[:148]) + 8 * 32 + sum(tar[156:512])


@given(st.lists(st.binary(max_size=3000).filter(lambda line: b"\n" not in line), min_size=1, max_size=8))
def test_any_lines_come_back(lines: list[bytes]) -> None:
    data, members = jsonl(lines)
    assert [archive.read_line(part(data, member)) for member in members] == lines
    assert [archive.find_line([data], number) for number in range(len(lines))] == lines


def test_a_member_that_is_not_exactly_one_is_refused() -> None:
    member = gzip.compress(b"line\n", mtime=0)
    with pytest.raises(ArchiveError, match="followed by 1 other"):
        archive.read_member(member + b"x")
    with pytest.raises(ArchiveError, match="followed by"):
        archive.read_member(member + member)
    for cut in range(len(member)):
        with pytest.raises(ArchiveError, match="cut short"):
            archive.read_member(member[:cut])
    with pytest.raises(ArchiveError, match="damaged"):
        archive.read_member(b"not gzip at all")
    flipped = bytearray(member)
    flipped[-6] ^= 1
    with pytest.raises(ArchiveError, match="damaged"):
        archive.read_member(bytes(flipped))


def test_a_bomb_is_refused_at_the_bound() -> None:
    bomb = gzip.compress(bytes(3_000_000), mtime=0)
    assert len(bomb) < 5000
    with pytest.raises(ArchiveError, match="more than 2999999"):
        archive.read_member(bomb, 2_999_999)
    assert len(archive.read_member(bomb, 3_000_000)) == 3_000_000


@pytest.mark.parametrize("content", [b"", b"no end", b"two\nlines\n", b"inner\nend"])
def test_a_member_without_exactly_one_line_is_refused(content: bytes) -> None:
    with pytest.raises(ArchiveError, match="exactly one line"):
        archive.read_line(gzip.compress(content, mtime=0))


def test_the_body_of_another_measurement_is_refused() -> None:
    data, members = postcan([b"one", b"two"])
    with pytest.raises(ArchiveError, match="does not hold the body of"):
        archive.read_body(part(data, members[0]), uid(1, b"two"))
    with pytest.raises(ArchiveError, match="does not hold the body of"):
        archive.read_body(gzip.compress(b"short", mtime=0), uid(1, b"two"))
    with pytest.raises(ArchiveError, match="does not hold the body of"):
        archive.read_body(gzip.compress(b"\xff" * 1024, mtime=0), uid(1, b"two"))
    entry = archive.read_member(part(data, members[0]))
    with pytest.raises(ArchiveError, match="cut short"):
        archive.read_body(gzip.compress(entry[:600], mtime=0), uid(0, b"one"))


def test_documents_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(ArchiveError, match="at most 10"):
        jsonl([b"x" * 11])
    with pytest.raises(ArchiveError, match="at most 10"):
        postcan([b"x" * 11])
    jsonl([b"x" * 10])


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_a_line_of_an_object_without_index_is_found(chunk: int) -> None:
    """Old objects are one gzip member; cat of several is allowed as well."""
    content = b"".join(line + b"\n" for line in LINES)
    for data in (gzip.compress(content, mtime=0), jsonl(LINES)[0]):
        chunks = [data[start : start + chunk] for start in range(0, len(data), chunk)]
        assert [archive.find_line(iter(chunks), number) for number in range(len(LINES))] == LINES
        with pytest.raises(ArchiveError, match="fewer lines"):
            archive.find_line(iter(chunks), len(LINES))


def test_the_search_reads_no_more_chunks_than_it_needs() -> None:
    data, members = jsonl([b"a", b"b", b"c"])
    chunks = iter([part(data, member) for member in members])
    assert archive.find_line(chunks, 1) == b"b"
    assert len(list(chunks)) == 1


def test_the_search_is_bounded() -> None:
    lines = gzip.compress(b"\n" * 5_000_000, mtime=0)
    with pytest.raises(ArchiveError, match="within the first 2000000"):
        archive.find_line([lines], 4_999_999, max_scan=2_000_000)
    with pytest.raises(ArchiveError, match="cut short"):
        archive.find_line([lines[:-1]], 5_000_000)
    with pytest.raises(ArchiveError, match="damaged"):
        archive.find_line([b"junk" * 10], 0)
    with pytest.raises(ArchiveError, match="fewer lines"):
        archive.find_line([], 0)


def test_a_last_line_without_end_is_found() -> None:
    assert archive.find_line([gzip.compress(b"a\nb", mtime=0)], 1) == b"b"


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1000)
    with pytest.raises(ArchiveError, match="longer than 1000"):
        archive.find_line([gzip.compress(b"x" * 2000, mtime=0)], 0)
