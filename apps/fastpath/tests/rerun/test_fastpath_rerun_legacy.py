"""History: cans of 2012 to 2020 and old postcans, normalised, scored and written by the rerun command."""

import base64
import gzip
import io
import json
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from core.archive import ArchiveError
from core.ids import legacy_measurement_uid
from core.objectstore import open_store
from fastpath.contents import Reader, Unreadable
from fastpath.fetch import Fetcher
from fastpath.fingerprints import load_files
from fastpath.legacy import generated_report_id, read_report
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.sources import Filters, Kind, WorkObject, list_day
from fastpath.tarstream import entries

Archive = Any

HEADER = """---
input_hashes: []
options: [-u, 'http://option.example/']
probe_asn: AS64500
probe_cc: FR
probe_city: null
report_id: {report_id}
software_name: sample
software_version: 1.0.0
start_time: 1463097600.0
test_helpers: {{}}
test_name: {test_name}
test_version: '0.1'
...
"""
ENTRY = """---
body_length_match: {match}
headers_match: true
input: null
requests:
- request: {{body: null, headers: [[User-Agent, [sample]]], method: GET, tor: true, url: 'http://{host}/'}}
  response: {{body: over tor, code: 200, headers: []}}
- request: {{body: null, headers: [], method: GET, tor: {{is_tor: false}}, url: 'http://{host}/'}}
  response: {{body: "no\\0nul", code: 200, headers: [[Content-Length, ['5']]]}}
test_runtime: 2.5
test_start_time: 1463097660.0
...
"""


def report(*hosts: str, test_name: str = "http_requests_test", report_id: str = "sampleReport") -> bytes:
    """A YAML report with an entry per host; what a host is called decides whether its lengths match."""
    text = HEADER.format(report_id=report_id, test_name=test_name)
    return (text + "".join(ENTRY.format(host=host, match=str("ok" in host).lower()) for host in hosts)).encode()


def json_lines(*numbers: int, test_name: str = "telegram", cc: str = "IT") -> bytes:
    """Measurements as old cans have them."""
    documents = [
        {
            "data_format_version": "0.2.0",
            "input": None,
            "measurement_start_time": "2019-08-29 01:02:03",
            "number": number,
            "probe_asn": "AS64500",
            "probe_cc": cc,
            "report_id": "20190829T010203Z_AS64500_" + "a" * 50,
            "test_keys": {"telegram_web_status": "ok", "tcp_connect": [], "requests": []},
            "test_name": test_name,
            "test_start_time": "2019-08-29 01:02:00",
        }
        for number in numbers
    ]
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def tar(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        directory = tarfile.TarInfo("incoming")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def store_object(archive: Archive, key: str, content: bytes) -> Path:
    path: Path = archive.objects / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_cans_of_all_kinds_become_rows(archive: Archive) -> None:
    lines = json_lines(1, 2, 3)
    store_object(
        archive,
        "canned/2019-08-29/telegram.0.tar.lz4",
        lz4.frame.compress(
            tar(
                {
                    "2019-08-29/one.json": lines,
                    "2019-08-29/two.yaml": report("ok.example", "bad.example"),
                    "2019-08-29/readme.txt": b"ignored",
                    "2019-08-29/broken.json": b"no json\n" + json_lines(4) + b"\n[1]\n",
                }
            )
        ),
    )
    single = "20190829T010203Z-DE-AS64500-signal-x-0.2.0-probe.json.lz4"
    store_object(archive, f"canned/2019-08-29/{single}", lz4.frame.compress(json_lines(7, test_name="signal", cc="DE")))
    yaml = "20160512T010203Z-FR-AS64500-http_requests-x-0.1.0-probe.yaml.lz4"
    store_object(archive, f"canned/2019-08-29/{yaml}", lz4.frame.compress(report("ok2.example")))
    store_object(archive, "canned/2019-08-29/index.json.gz", b"an index of something else")
    said = archive.rerun("--start-day", "2019-08-29", "--end-day", "2019-08-30")
    rows = archive.rows()
    assert sorted(row[6] for row in rows.values()) == ["http_requests"] * 3 + ["signal"] + ["telegram"] * 4
    for line in lines.splitlines(keepends=True):
        assert legacy_measurement_uid(line, "2019-08-29 01:02:03") in rows
    requests = [row for row in rows.values() if row[6] == "http_requests"]
    assert {row[2] for row in requests} == {"http://option.example/"}
    assert {f"{row[8]}" for row in requests} == {"2016-05-13 00:01:00"}
    assert [row[10] for row in sorted(requests, key=lambda row: row[10])] == [False, False, True]
    assert all(uid.startswith("0120160513") for uid in rows if rows[uid][6] == "http_requests")
    assert "left_out_line_not_json=2" in said
    assert "left_out_entry_ignored=1" in said
    assert archive.differences() == []
    before = archive.rows(), archive.counters()
    archive.rerun("--start-day", "2019-08-29", "--end-day", "2019-08-30", "--update")
    assert (archive.rows(), archive.counters()) == before


def test_filters_look_into_cans(archive: Archive) -> None:
    mixed = json_lines(1, 2) + json_lines(3, cc="DE") + json_lines(4, test_name="whatsapp")
    store_object(archive, "canned/2019-08-29/telegram.0.tar.lz4", lz4.frame.compress(tar({"a.json": mixed})))
    skipped = "20190829T010203Z-DE-AS64500-signal-x-0.2.0-probe.json.lz4"
    store_object(archive, f"canned/2019-08-29/{skipped}", b"is not even opened")
    days = ("--start-day", "2019-08-29", "--end-day", "2019-08-30")
    archive.rerun(*days, "--ccs", "IT", "--testnames", "telegram")
    assert [(row[4], row[6]) for row in archive.rows().values()] == [("IT", "telegram")] * 2


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("packed", [True, False])
def test_old_postcans_are_read_whatever_their_tar(archive: Archive, form: int, packed: bool) -> None:
    at = archive.day
    body = archive.submission(1, at, "CU", "signal")
    yaml = json.dumps({"format": "yaml", "content": "just: text"}).encode()
    uids = [f"20240102030000.00000{number}_CU_signal_0123456789abcdef" for number in range(3)]
    directory = "var/lib/ooniapi/measurements/incoming/2024010203_CU_signal"
    files = {
        f"{directory}/{uids[0]}.post": body,
        f"{directory}/{uids[1]}.tmp": b"left out",
        f"{directory}/{uids[2]}.post": yaml,
    }
    content = tar(files, form)
    key = "raw/20240102/03/CU/signal/2024010203_CU_signal.n0.0.tar.gz"
    store_object(archive, key, gzip.compress(content) if packed else content)
    said = archive.rerun(*archive.range)
    assert set(archive.rows()) == {uids[0]}  # the YAML holds no report id
    assert archive.number_of(said, "measurements") == 2
    assert archive.number_of(said, "discarded") == 1


# Reading ------------------------------------------------------------------------------------------------------------


def read(archive: Archive, key: str, kind: Kind, content: bytes) -> tuple[list[str], dict[str, int], str]:
    """Uids, what was left out, and the error of reading an object."""
    store_object(archive, key, content)
    fetcher = Fetcher(open_store(archive.store_url), None)
    reader = Reader(fetcher, Filters(), lambda _: [])
    uids, error = [], ""
    try:
        for work, stream in fetcher.objects([WorkObject(key, len(content), date(2019, 8, 29), kind)]):
            uids.extend(submission.uid for submission in reader.read(work, stream))
    except Unreadable as failure:
        error = str(failure)
    fetcher.close()
    return uids, dict(reader.left_out), error


def test_what_stands_before_the_damage_is_read(archive: Archive) -> None:
    files = {f"incoming/2024010203_IT_signal/2024010203000{n}.post": b"x" * 50_000 for n in range(5)}
    whole = tar(files)
    damages = {
        "cut short": gzip.compress(whole)[:-40],
        "cut within an entry": gzip.compress(whole[: len(whole) // 2]),
        "other bytes in a header": gzip.compress(whole[:101_900] + b"\xff" * 300 + whole[102_200:]),
        "no archive": gzip.compress(b"something else" * 100),
        "no gzip": b"\x1f\x8bno gzip at all",
        "empty": b"",
    }
    counts = {}
    for name, content in damages.items():
        uids, _, error = read(archive, f"raw/{name.replace(' ', '-')}.tar.gz", Kind.POSTCAN, content)
        assert "is damaged" in error, name
        counts[name] = len(uids)
    assert counts["cut short"] >= 2
    assert 1 <= counts["cut within an entry"] <= 3
    assert 1 <= counts["other bytes in a header"] <= 4
    assert counts["no archive"] == counts["no gzip"] == counts["empty"] == 0
    packed = lz4.frame.compress(json_lines(*range(1000)))
    uids, _, error = read(archive, "canned/x.json.lz4", Kind.JSON_CAN, packed[: len(packed) // 2])
    assert "is damaged" in error
    uids, _, error = read(archive, "canned/y.json.lz4", Kind.JSON_CAN, b"not lz4")
    assert "is damaged" in error
    uids, _, error = read(archive, "canned/z.bin", Kind.UNKNOWN, b"")
    assert "none of the known formats" in error


def test_tar_streams_agree_with_the_standard_library(archive: Archive) -> None:
    names = {
        "short": b"1",
        "x" * 99: b"2" * 512,
        "d/" * 60 + "y" * 90: b"3" * 513,
        "ü" * 80: b"",
        "z" * 300: b"4" * 5000,
    }
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        packed = tar(names, form)
        assert {entry.name: entry.read_whole() for entry in entries(io.BytesIO(packed))} == names
        skipped = [(entry.name, entry.size) for entry in entries(io.BytesIO(packed))]
        assert skipped == [(name, len(content)) for name, content in names.items()]


def test_days_choose_their_layout(tmp_path: Path) -> None:
    for key in (
        "canned/2020-10-21/a.tar.lz4",
        "raw/20201021/00/IT/signal/a.n0.0.tar.gz",
        "raw/20201021/00/IT/signal/x",
    ):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for key in ("canned/2020-10-22/a.tar.lz4", "raw/20201019/00/IT/signal/a.n0.0.tar.gz"):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    store = open_store(f"file://{tmp_path}")

    def listed(day: date, *ccs: str) -> list[str]:
        filters = Filters(frozenset(ccs))
        return [work.key for work in list_day(store, day, filters, "auto")]

    assert listed(date(2020, 10, 21)) == ["canned/2020-10-21/a.tar.lz4", "raw/20201021/00/IT/signal/a.n0.0.tar.gz"]
    assert listed(date(2020, 10, 22)) == []
    assert listed(date(2020, 10, 19)) == []
    assert listed(date(2020, 10, 21), "DE") == ["canned/2020-10-21/a.tar.lz4"]


# YAML ---------------------------------------------------------------------------------------------------------------


def normalised(raw: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    left_out: list[str] = []
    found = [json.loads(body) for _, body in read_report(io.BytesIO(raw), "2016-05-13/x.yaml", left_out.append)]
    return found, left_out


def test_a_report_without_an_id_gets_the_same_one_every_time() -> None:
    raw = report("a.example", report_id="null")
    [one], _ = normalised(raw)
    [two], _ = normalised(raw)
    assert one["report_id"] == two["report_id"]
    assert one["report_id"].startswith("20160513T000000Z_")
    assert len(one["report_id"]) == 17 + 50


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("a: [1\n", "entry_not_yaml"),
        ("- 1\n", "entry_not_an_object"),
        ("a: !!python/object:os.system x\n", "entry_not_yaml"),
        ("test_start_time: 7\n", "entry_without_start_time"),
        ("requests: [{request: null}]\n", "entry_malformed"),
        ("requests: [{request: {url: x, headers: [[A, ['" + "v" * 10_000 + "']]]}}]\n", "header_too_long"),
        ("a: 1\u0007\n", "entry_not_yaml"),
    ],
)
def test_an_entry_that_cannot_be_used_is_left_out_alone(entry: str, reason: str) -> None:
    raw = report("a.example") + b"---\n" + entry.encode() + b"...\n" + report("b.example").partition(b"...\n")[2]
    found, left_out = normalised(raw)
    assert [item["test_keys"]["requests"][0]["request"]["url"] for item in found] == [
        "http://a.example/",
        "http://b.example/",
    ]
    assert left_out == [reason]


def test_aliases_are_followed_but_not_without_end() -> None:
    raw = report("a.example") + b"---\nx: &x [1, 2]\ny: *x\ntest_start_time: 1.0\n...\n"
    assert normalised(raw)[0][1]["test_keys"]["y"] == [1, 2]
    levels = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        levels.append(f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]")
    bomb = report("a.example") + ("---\n" + "\n".join(levels) + "\n...\n").encode()
    found, left_out = normalised(bomb)
    assert (len(found), left_out) == (1, ["entry_not_yaml"])


def test_a_report_must_tell_its_day() -> None:
    with pytest.raises(ArchiveError, match="does not tell its day"):
        next(read_report(io.BytesIO(b""), "1999-01-01/x.yaml", print))


@pytest.mark.corpus
def test_reports_are_normalised_and_scored_as_in_the_corpus(shared_dir: Path) -> None:
    corpus = shared_dir / "corpus"
    matcher = Matcher(load_files(corpus), "reference")
    cases = sorted((corpus / "legacy").glob("*.expected.json"))
    assert len(cases) > 15
    for path in cases:
        expected = json.loads(path.read_text())
        with open(path.with_name(path.name.replace(".expected.json", ".yaml")), "rb") as file:
            found = list(read_report(file, expected["report_filename"], lambda _: None))
        assert [json.loads(body) for _, body in found] == expected["normalised"], path.name
        outcomes = [process(measurement["measurement_uid"], body, matcher) for measurement, body in found]
        assert [outcome.scores for outcome in outcomes] == expected["scores"], path.name


@pytest.mark.corpus
def test_identifiers_of_old_measurements_are_as_in_the_corpus(shared_dir: Path) -> None:
    vectors = json.loads((shared_dir / "corpus" / "legacy" / "id_vectors.json").read_text())
    for vector in vectors["legacy_uid"]:
        started = vector["measurement_start_time"]
        uid = legacy_measurement_uid(base64.b64decode(vector["raw_b64"]), started if isinstance(started, str) else "")
        assert uid == vector["uid"]
    for vector in vectors["generated_report_id"]:
        assert generated_report_id(vector["header"]) == vector["report_id_tz_utc"]
