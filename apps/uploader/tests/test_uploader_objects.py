"""Batches read back out of their objects, and measurements blotted out of them."""

import gzip
import itertools
import json
import os
import random
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from core.archive import ArchiveError, entry_name
from core.envelope import inner_document
from uploader.objects import (
    archive_of,
    blank,
    blot_entries,
    blot_lines,
    entries,
    fetch,
    members,
    rebuild_jsonl,
    slots,
)
from uploader.pack import Targets, pack, read_rows

BODIES = [
    b'{"format": "json", "content": {"report_id": "r", "input": "i", "n": 1}}',
    b'{"format": "json", "content": {"n":\n2}}',  # its line is not what was sent
    b"nothing that is JSON",
    b"1",
    b'{"random": "%s"}' % random.Random(1).randbytes(100_000).hex().encode(),
    b'{"n": "%s"}' % (b"a" * 10_000),
]


@pytest.fixture
def batch(host, tmp_path: Path) -> tuple[list[str], Targets]:
    """Six odd measurements, packed."""
    uids = sorted(host.receive(body) for body in BODIES)
    targets = Targets(tmp_path / "x.jsonl.gz", tmp_path / "x.tar.gz", tmp_path / "x.rows")
    packed = pack(host.spool, uids, targets, None, lambda *_: None)
    assert packed.uids == uids
    assert archive_of(targets.jsonl) == packed.jsonl
    return uids, targets


def test_slots_are_the_rows_that_packing_made(host, batch) -> None:
    uids, targets = batch
    found = list(slots(targets.jsonl, targets.postcan))
    for slot, row, uid in zip(found, read_rows(targets.rows), uids, strict=True):
        assert slot.body == host.sent[uid]
        if slot.line.decoded:
            assert slot.row == row
        else:  # the report id of a body without a document was in the spool only
            assert slot.row.report_id == ""
            assert slot.row.raw_offset == row.raw_offset


def test_the_jsonl_object_can_be_made_again_from_the_postcan(batch, tmp_path: Path) -> None:
    _, targets = batch
    assert rebuild_jsonl(targets.postcan, tmp_path / "again") == archive_of(targets.jsonl)
    assert (tmp_path / "again").read_bytes() == targets.jsonl.read_bytes()


def test_any_change_is_noticed(batch, tmp_path: Path) -> None:
    _, targets = batch
    chance = random.Random(2)
    for name in ("jsonl", "postcan"):
        path = getattr(targets, name)
        whole = path.read_bytes()
        tried = [
            whole[:-1],
            whole + b"x",
            whole[: chance.randrange(1, len(whole))],
            whole + gzip.compress(b"more"),
            b"",
        ]
        tried += [
            whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
            for at in chance.sample(range(12, len(whole)), 60)
        ]
        for changed in tried:
            path.write_bytes(changed)
            try:
                list(slots(targets.jsonl, targets.postcan))
            except ArchiveError:
                continue
            # a header field of gzip that nobody reads
            assert gzip.decompress(changed) == gzip.decompress(whole)
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"0\n"])
def test_blanks_have_any_length(tmp_path: Path, content: bytes) -> None:
    shortest = next(length for length in itertools.count() if blank(length, content))
    assert shortest < 30
    lengths = [*range(shortest, shortest + 40), *range(65_540, 65_600), 200_000, 3_000_001]
    for length in lengths:
        made = blank(length, content)
        assert made is not None
        assert len(made) == length
        assert gzip.decompress(made) == content
        decompressor = zlib.decompressobj(wbits=31)
        assert decompressor.decompress(made) == content
        assert decompressor.eof
        assert not decompressor.unused_data
    path = tmp_path / "blanks.gz"
    path.write_bytes(b"".join(filter(None, (blank(length, content) for length in lengths))))
    listed = subprocess.run(["zcat", path], capture_output=True, check=True).stdout
    assert listed == content * len(lengths)
    assert [member.length for member, _ in members(path)] == lengths


@pytest.mark.parametrize("gone", range(len(BODIES)))
def test_a_measurement_is_blotted_out_and_nothing_else_moves(host, batch, gone: int) -> None:
    uids, targets = batch
    before = list(slots(targets.jsonl, targets.postcan))
    sizes = targets.jsonl.stat().st_size, targets.postcan.stat().st_size
    [entry] = [entry for entry in entries(targets.postcan) if entry.uid == uids[gone]]
    for _ in range(2):  # safe to repeat
        blot_lines(targets.jsonl, [entry.number])
        blot_entries(targets.postcan, [entry.member])
    assert (targets.jsonl.stat().st_size, targets.postcan.stat().st_size) == sizes
    assert list(slots(targets.jsonl, targets.postcan)) == [slot for slot in before if slot.row.linenum != gone]

    # as ordinary tools see it
    listed = subprocess.run(["tar", "tzf", targets.postcan], capture_output=True, check=True, text=True)
    assert listed.stdout.split() == [entry_name(uid) for uid in uids if uid != uids[gone]]
    with tarfile.open(targets.postcan) as tar:
        assert len(tar.getnames()) == len(uids) - 1
    lines = subprocess.run(["zcat", targets.jsonl], capture_output=True, check=True).stdout.split(b"\n")[:-1]
    assert len(lines) == len(uids)
    assert json.loads(lines[gone]) in ({}, 0)
    body = host.sent[uids[gone]]
    if len(body) > 20:
        everything = gzip.decompress(targets.postcan.read_bytes()) + b"".join(lines)
        assert body not in everything
        assert inner_document(host.sent[uids[0]]) if gone else True


def test_a_postcan_with_blanks_does_not_give_a_wrong_jsonl_object(batch, tmp_path: Path) -> None:
    _, targets = batch
    first = next(entries(targets.postcan))
    blot_entries(targets.postcan, [first.member])
    with pytest.raises(ArchiveError, match="blanks"):
        rebuild_jsonl(targets.postcan, tmp_path / "again")
    with pytest.raises(ArchiveError, match="no longer has"):
        list(slots(targets.jsonl, targets.postcan))


def test_an_object_is_fetched_with_its_checksum(host, tmp_path: Path) -> None:
    host.receive(os.urandom(3_000_000).hex().encode())
    host.succeed()
    [line] = host.rows("SELECT * FROM upload_manifest")
    found = fetch(host.store, line["postcan_s3path"], tmp_path / "x")
    assert (found.size, found.sha256) == (line["postcan_bytes"], line["postcan_sha256"])
    assert (tmp_path / "x").stat().st_size == found.size
