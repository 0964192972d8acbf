"""`uploader takedown` removes a report from everywhere, whenever it is interrupted, and nothing else changes."""

import gzip
import io
import json
import re
import signal
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import uploader.takedown
from core.archive import entry_name
from core.body_cache import BodyCache
from core.ids import new_report_id
from fastpath.config import FastpathSettings

HOUR = datetime(2024, 1, 2, 3, tzinfo=UTC)
REPORT = new_report_id(HOUR, "web_connectivity", "IT", 30722, "1")
OTHER = new_report_id(HOUR, "web_connectivity", "IT", 30722, "1")
SECRET = "a-phrase-that-has-to-go"
DAY = ("--since", "2024-01-02", "--until", "2024-01-02", "--settle-s", "0", "--deep")


def body(number: int, report_id: str) -> bytes:
    pad = f"{SECRET}-" * number if report_id == REPORT else "b" * number
    return json.dumps({"format": "json", "content": {"report_id": report_id, "n": number, "pad": pad}}).encode()


def receive(host, number: int, report_id: str, *, scored: bool = True, **more: Any) -> str:
    """Take a measurement in, with the row that the fastpath writes and its counters."""
    uid = host.receive(
        more.pop("body", body(number, report_id)),
        at=HOUR + timedelta(seconds=number),
        report_id=report_id,
        scored=scored,
        **more,
    )
    if scored:
        score(host, uid, report_id)
    return uid


def score(host, uid: str, report_id: str) -> None:
    with psycopg.connect(host.dsn) as connection:
        connection.execute(
            "INSERT INTO fastpath (measurement_uid, report_id, measurement_start_time, scores, anomaly, confirmed,"
            " msm_failure) VALUES (%s, %s, '2024-01-02 03:00', '{}', false, false, false)",
            [uid, report_id],
        )
        connection.execute(
            "INSERT INTO counters_country AS c (measurement_start_day, test_name, probe_cc, ok_count,"
            " measurement_count) VALUES ('2024-01-02', '', '', 1, 1) ON CONFLICT (measurement_start_day, key) DO UPDATE"
            " SET ok_count = c.ok_count + 1, measurement_count = c.measurement_count + 1"
        )


@pytest.fixture
def served(host):
    """Two reports, half of each archived in two batches, a quarter in the spool, one waiting, one set aside."""
    for number in range(12):
        receive(host, number, REPORT if number % 3 == 0 else OTHER)
    host.receive(b'{"n":\n1}', at=HOUR + timedelta(seconds=40), report_id=OTHER)
    receive(host, 41, REPORT, body=f'{{"report_id": "{REPORT}",\n"x": "{SECRET}"}}'.encode())
    assert host.call(OONI_UPLOADER_POSTCAN_BYTES="2000").returncode == 0
    assert len(host.object_keys()) == 4
    for number in range(50, 54):
        receive(host, number, REPORT if number % 2 == 0 else OTHER)
    receive(host, 60, REPORT, scored=False)
    receive(host, 61, OTHER, scored=False)
    host.spool.quarantine(receive(host, 70, REPORT), "a test")
    return host


def takedown(host, *arguments: str, settle_s: float = 0.0, **environment: str) -> "subprocess.CompletedProcess[str]":
    settle = ("--settle-s", str(settle_s))
    return host.call("takedown", "--reason", "asked for by its sender", *settle, *arguments, **environment)


def assert_gone(host, uids: set[str]) -> None:
    """Nothing of these measurements is left anywhere, everything else is as it was."""
    for uid in uids:
        del host.sent[uid]
        assert host.reader.read(uid) is None
    host.assert_readable()
    for path in (host.root / "spool").rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text("latin-1"), path
            assert REPORT not in path.read_text("latin-1"), path
    names: list[str] = []
    for key in host.object_keys():
        raw = (host.objects / key).read_bytes()
        assert SECRET.encode() not in gzip.decompress(raw)
        assert REPORT.encode() not in gzip.decompress(raw)
        if key.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
                names += tar.getnames()
    assert not set(names) & {entry_name(uid) for uid in uids}
    for table in ("jsonl", "fastpath", "fastpath_misdated"):
        left = host.rows(f"SELECT measurement_uid FROM {table}")
        assert not uids & {row["measurement_uid"] for row in left}
    rows = host.rows("SELECT count(*) AS n FROM fastpath")[0]["n"]
    counted = host.rows("SELECT ok_count, measurement_count FROM counters_country")
    assert counted == [{"ok_count": rows, "measurement_count": rows}]
    compared = host.call("verify", *DAY)
    assert compared.returncode == 0, compared.stdout


def of_report(host) -> set[str]:
    return {uid for uid, sent in host.sent.items() if REPORT.encode() in sent}


def test_the_rehearsal_tells_and_changes_nothing(served) -> None:
    before = {path: path.read_bytes() for path in served.root.rglob("*") if path.is_file()}
    rows = served.rows(), served.rows("SELECT * FROM fastpath ORDER BY 1")
    printed = takedown(served, "--report-id", REPORT)
    assert printed.returncode == 0
    wanted = of_report(served)
    assert len(wanted) == 9
    assert printed.stdout.startswith(f"report {REPORT}: 9 measurements\n")
    assert set(re.findall(r"^  (2\S+_webconnectivity_\w{16})$", printed.stdout, re.MULTILINE)) == wanted
    assert "in the spool of this host: 4\n" in printed.stdout
    assert "rows in fastpath: 8\n" in printed.stdout
    assert "objects to rewrite: 2, each with its postcan\n" in printed.stdout
    assert printed.stdout.endswith("Nothing was changed. Add --go to do it.\n")
    assert {path: path.read_bytes() for path in served.root.rglob("*") if path.is_file()} == before
    assert (served.rows(), served.rows("SELECT * FROM fastpath ORDER BY 1")) == rows
    assert served.rows("SELECT * FROM takedown_audit") == []


def test_a_report_is_removed_from_everywhere(served) -> None:
    wanted = of_report(served)
    cache = BodyCache(served.spool.root / "cache", 1 << 20)
    cache.put("x", SECRET.encode())
    sizes = {key: (served.objects / key).stat().st_size for key in served.object_keys()}
    others = [row for row in served.rows() if row["measurement_uid"] not in wanted]
    done = takedown(served, "--report-id", REPORT, "--go")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("9 measurements taken down, number ")
    assert served.rows() == others, "no other row moves"
    assert {key: (served.objects / key).stat().st_size for key in served.object_keys()} == sizes
    [audit] = served.rows("SELECT * FROM takedown_audit")
    assert audit["finished_at"] >= audit["started_at"]
    assert (audit["report_id"], audit["reason"]) == (REPORT, "asked for by its sender")
    assert set(audit["measurement_uids"]) == wanted
    assert_gone(served, wanted)
    served.succeed("--now")
    served.assert_readable()
    assert takedown(served, "--report-id", REPORT, "--go").returncode == 5, "there is nothing left of it"


def test_one_measurement_of_a_report_is_removed(served) -> None:
    [uid] = [uid for uid in of_report(served) if uid.startswith("20240102030003")]
    assert takedown(served, "--measurement-uid", uid, "--go").returncode == 0
    del served.sent[uid]
    served.assert_readable()
    assert served.reader.read(uid) is None
    assert served.call("verify", *DAY).returncode == 0
    [audit] = served.rows("SELECT * FROM takedown_audit")
    assert (audit["report_id"], audit["measurement_uids"]) == ("", [uid])


POINTS = [
    "takedown.after_audit",
    "takedown.during_spool",
    "takedown.during_spool:3",
    "takedown.after_rows",
    "takedown.after_rewrite",
    "takedown.after_put",
    "takedown.after_put:2",
    "takedown.after_put:3",
    "takedown.before_finish",
]


def test_the_list_of_points_is_complete() -> None:
    source = Path(uploader.takedown.__file__).read_text()
    assert set(re.findall(r'crash_point\("([^"]+)"\)', source)) == {point.partition(":")[0] for point in POINTS}


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_run_again(served, point: str) -> None:
    wanted = of_report(served)
    arguments = ("takedown", "--report-id", REPORT, "--reason", "r", "--settle-s", "0", "--go")
    killed = served.run(*arguments, OONI_CRASH_AT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for uid in served.sent.keys() - wanted:
        assert served.reader.read(uid) is not None
    [audit] = served.rows("SELECT * FROM takedown_audit")
    assert audit["finished_at"] is None
    assert "takedown_unfinished" in served.call("verify", *DAY).stdout
    again = served.call(*arguments)
    assert again.returncode == 0, again.stderr
    [audit] = served.rows("SELECT * FROM takedown_audit")
    assert audit["finished_at"] is not None
    assert set(audit["measurement_uids"]) == wanted
    assert_gone(served, wanted)


def test_what_an_interrupted_run_put_is_removed_too(host) -> None:
    """The batch is in the store and not in the manifest; the takedown has it finished first."""
    for number in range(6):
        receive(host, number, REPORT if number % 3 == 0 else OTHER)
    assert host.run(OONI_CRASH_AT="uploader.after_put").returncode == -signal.SIGKILL
    wanted = of_report(host)
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    assert_gone(host, wanted)


def test_a_second_copy_that_no_row_points_to_is_removed_too(host) -> None:
    for number in range(6):
        receive(host, number, REPORT if number % 3 == 0 else OTHER)
    host.run(OONI_CRASH_AT="uploader.after_put")
    for plan in (host.spool.root / "packing").glob("*.plan"):
        plan.unlink()
    host.call()
    assert len(host.object_keys()) == 4
    wanted = of_report(host)
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    host.call("verify", *DAY, "--repair")
    assert_gone(host, wanted)


def test_what_was_being_scored_leaves_no_row(host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scorer had read the file before it went; its row comes a moment later."""
    receive(host, 1, OTHER)
    uid = receive(host, 0, REPORT, scored=False)
    monkeypatch.setattr("time.sleep", lambda _seconds: score(host, uid, REPORT))
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    assert_gone(host, {uid})


def test_a_resumed_takedown_waits_too(host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file went before the crash, so nothing shows any more that it was being scored."""
    receive(host, 1, OTHER)
    uid = receive(host, 0, REPORT, scored=False)
    arguments = ("takedown", "--report-id", REPORT, "--reason", "r", "--go")
    assert host.run(*arguments, OONI_CRASH_AT="takedown.after_rows").returncode == -signal.SIGKILL
    assert host.spool.read(uid) is None
    monkeypatch.setattr("time.sleep", lambda _seconds: score(host, uid, REPORT))
    assert takedown(host, "--report-id", REPORT, "--go", settle_s=1000).returncode == 0
    assert_gone(host, {uid})


def test_it_waits_for_nothing_where_nothing_was_being_scored(host, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = receive(host, 0, REPORT)
    receive(host, 1, OTHER)
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waited"))
    assert takedown(host, "--report-id", REPORT, "--go", settle_s=1000).returncode == 0
    assert_gone(host, {uid})


def test_it_waits_as_long_as_the_fastpath_may_take() -> None:
    limits = FastpathSettings()
    assert limits.document_limit_s + limits.statement_timeout_s + limits.retry_max_s <= uploader.takedown.SETTLE_S


@pytest.mark.parametrize("states", [("scored",), ("incoming",), ("quarantine",), ("row",), ("archived",)])
def test_what_comes_back_after_a_takedown_is_found_and_removed_again(host, states: tuple[str, ...]) -> None:
    """A row by a scorer that was late, a spool that was restored, or another host that archived it."""
    receive(host, 1, OTHER)
    uid = receive(host, 0, REPORT)
    sent = host.sent[uid]
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    if "row" in states:
        score(host, uid, REPORT)
    elif "archived" in states:
        with psycopg.connect(host.dsn) as connection:
            [audit] = connection.execute("DELETE FROM takedown_audit RETURNING measurement_uids").fetchall()
            host.receive(sent, at=HOUR, report_id=REPORT)
            connection.commit()
            assert host.call().returncode == 0
            connection.execute(
                "INSERT INTO takedown_audit (report_id, measurement_uids, reason, host, finished_at)"
                " VALUES (%s, %s, 'r', 'h', now())",
                [REPORT, audit[0]],
            )
    else:
        host.receive(sent, at=HOUR, report_id=REPORT, scored="incoming" not in states)
        if "quarantine" in states:
            host.spool.quarantine(uid, "a test")
    found = host.call("verify", *DAY)
    assert f"takedown_undone {uid}: Takedown " in found.stdout
    assert found.returncode == 4
    assert host.call("verify", *DAY, "--repair").returncode == 0
    host.sent[uid] = sent
    assert_gone(host, {uid})


def test_the_uploader_does_not_archive_what_was_taken_down(host) -> None:
    uid, other = receive(host, 0, REPORT), receive(host, 1, OTHER)
    sent = host.sent[uid]
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    assert host.receive(sent, at=HOUR, report_id=REPORT) == uid
    assert host.call().returncode == 1
    assert [row["measurement_uid"] for row in host.rows()] == [other]
    assert host.metric("uploader_failures_total", step="compare") == 1
    assert host.call("verify", *DAY, "--repair").returncode == 0
    assert_gone(host, {uid})


def test_who_may_not_delete_rows_is_told_so(host) -> None:
    receive(host, 1, OTHER)
    uid = receive(host, 0, REPORT)
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    score(host, uid, REPORT)
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader_of_takedowns")
        connection.execute("CREATE ROLE reader_of_takedowns LOGIN IN ROLE pg_read_all_data")
        try:
            account = make_conninfo(host.dsn, user="reader_of_takedowns")
            done = host.call("verify", *DAY, "--repair", OONI_UPLOADER_DB_URI=account)
            assert done.returncode == 4, done.stderr
            assert f"takedown_undone {uid}: Takedown " in done.stdout
            done = host.call("verify", *DAY, "--repair", "--dsn", host.dsn, OONI_UPLOADER_DB_URI=account)
            assert done.returncode == 0, done.stdout
        finally:
            connection.execute("DROP ROLE reader_of_takedowns")
    host.sent[uid] = b""
    assert_gone(host, {uid})


def test_an_object_of_old_without_positions(host) -> None:
    """Lines are found by number there, so they keep their numbers; the archive beside it loses its entry."""
    uids = [f"0120160101{number:030x}" for number in range(3)]
    key = "raw/20160101/00/IT/x/20160101_IT_x.l.0"
    lines = [f'{{"n": {number}, "x": "{SECRET if number == 1 else "y"}"}}\n' for number in range(3)]
    path = host.objects / f"{key}.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(lines).encode()))
    with tarfile.open(host.objects / f"{key}.tar.gz", "w:gz") as tar:
        for uid, line in zip(uids, lines, strict=True):
            entry = tarfile.TarInfo(f"incoming/{uid}.post")
            entry.size = len(line)
            tar.addfile(entry, io.BytesIO(line.encode()))
    with psycopg.connect(host.dsn) as connection:
        for number, uid in enumerate(uids):
            connection.execute(
                "INSERT INTO jsonl (measurement_uid, report_id, input, s3path, linenum) VALUES (%s, 'old', '', %s, %s)",
                [uid, f"{key}.jsonl.gz", number],
            )
    done = takedown(host, "--measurement-uid", uids[1], "--go")
    assert done.returncode == 0, done.stderr
    left = gzip.decompress(path.read_bytes()).decode()
    assert left == f"{lines[0]}{{}}\n{lines[2]}"
    with tarfile.open(host.objects / f"{key}.tar.gz") as tar:
        assert tar.getnames() == [f"incoming/{uid}.post" for uid in (uids[0], uids[2])]
    assert host.reader.read(uids[1]) is None
    assert host.reader.read(uids[2]).document == lines[2].strip().encode()


def test_observations_go_too(host) -> None:
    uid = receive(host, 0, REPORT)
    receive(host, 1, OTHER)
    with psycopg.connect(host.dsn) as connection:
        connection.execute(
            "INSERT INTO obs_openvpn (measurement_uid, probe_cc, probe_asn, test_start_time, measurement_start_time,"
            " anomaly, confirmed, success, success_handshake, success_icmp, success_urlgrab)"
            " VALUES (%s, 'IT', 1, now(), now(), false, false, true, true, true, true)",
            [uid],
        )
    assert takedown(host, "--report-id", REPORT, "--go").returncode == 0
    assert host.rows("SELECT * FROM obs_openvpn") == []
    assert_gone(host, {uid})


def test_an_object_that_is_gone_does_not_stop_it(served) -> None:
    for key in served.object_keys()[:2]:
        (served.objects / key).unlink()
    assert takedown(served, "--report-id", REPORT, "--go").returncode == 0
    assert not of_report(served) & {row["measurement_uid"] for row in served.rows()}


def test_other_hosts_and_kept_versions_are_named(served) -> None:
    printed = takedown(served, "--report-id", REPORT, OONI_UPLOADER_PEERS="http://10.0.0.2:8475").stdout
    assert "Other hosts have spools of their own (http://10.0.0.2:8475). Run the same command on each." in printed


def test_it_waits_for_a_run_at_work(served) -> None:
    with psycopg.connect(served.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('uploader 1', 0))")
        assert takedown(served, "--report-id", REPORT, "--go").returncode == 75
    assert served.rows("SELECT * FROM takedown_audit WHERE finished_at IS NOT NULL") == []


def test_what_is_nowhere_is_said(host) -> None:
    for arguments in (("--report-id", REPORT), ("--measurement-uid", "x"), ("--report-id", "no such id")):
        done = takedown(host, *arguments, "--go")
        assert (done.returncode, done.stderr) == (
            5,
            "uploader: Neither the database nor the spool of this host has it.\n",
        )
    assert host.rows("SELECT * FROM takedown_audit") == []


def test_a_reason_is_needed(host) -> None:
    done = host.call("takedown", "--report-id", REPORT, "--reason", " ")
    assert done.returncode == 2
    assert "Say why" in done.stderr


def test_what_it_logs_has_ids_and_the_reason_and_no_content(served) -> None:
    done = served.run("takedown", "--report-id", REPORT, "--reason", "asked for", "--settle-s", "0", "--go")
    assert done.returncode == 0, done.stderr
    begun, finished = [line for line in done.stderr.splitlines() if 'event="takedown' in line]
    assert f"report_id={REPORT}" in begun
    assert 'reason="asked for"' in begun
    assert "measurements=9" in finished
    assert SECRET not in done.stderr + done.stdout
