"""Scoring processes of a real daemon: they are killed, stopped, starved and poisoned, and nothing is lost."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.spool import INCOMING, QUARANTINE, Spool
from fastpath import poison
from fastpath.poison import ALL_ATTEMPTS, SYSTEMIC, Marks, Suspects
from fastpath.scoring_client import ProcessLost, ScoringProcess
from fastpath.scoring_protocol import Cell, Load, create_cell_file, encode
from fastpath.store import Store

Measure = Callable[..., tuple[str, bytes]]


def scoring_processes(daemon: Any) -> list[int]:
    """Return the ids of the daemon's scoring processes, without those that are about to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == daemon.process.pid and state != "Z" and b"fastpath.scoring_process\0worker-" in command:
            found.append(int(entry.name))
    return sorted(found)


def put(daemon: Any, measurement: Measure, numbers: Sequence[int], **changes: Any) -> list[str]:
    made = [measurement(number, **changes) for number in numbers]
    for uid, body in made:
        daemon.spool.put(uid, body, "")
    return [uid for uid, _ in made]


def exits(daemon: Any, reason: str) -> float:
    return float(daemon.metrics()[f'fastpath_worker_exits_total{{reason="{reason}"}}'])


def reason_of(daemon: Any, uid: str) -> str:
    return str(daemon.spool.path(QUARANTINE, uid).with_suffix(".reason").read_text())


def settled(daemon: Any, uids: Sequence[str], *quarantined: str) -> None:
    """Assert that all these have their row, once, and the quarantined ones none."""
    daemon.wait_for(lambda: daemon.spool.counts().incoming == 0, 40)
    assert daemon.rows() == dict.fromkeys(set(uids) - set(quarantined), 1)
    assert {uid for uid in uids if daemon.spool.path(QUARANTINE, uid).exists()} == set(quarantined)
    assert daemon.differences() == []
    assert list((daemon.root / poison.DIRECTORY).glob("*.suspect")) == []


# Killed ---------------------------------------------------------------------------------------------------------------


def test_there_is_a_process_per_worker_and_none_is_left_behind(daemon: Any, measurement: Measure) -> None:
    daemon.start(workers=3)
    daemon.wait_for(lambda: len(scoring_processes(daemon)) == 3)
    pids = scoring_processes(daemon)
    daemon.wait_for(lambda: daemon.metrics()["fastpath_workers"] == 3)
    environment = Path(f"/proc/{pids[0]}/environ").read_text()
    assert "OONI_FASTPATH_SPOOL_DIRECTORY" in environment
    assert "OONI_FASTPATH_DB_URI" not in environment  # what only scores needs no database
    daemon.wait_for(lambda: Path(f"/proc/{pids[0]}/oom_score_adj").read_text() == "600\n")
    ours = os.getpriority(os.PRIO_PROCESS, daemon.process.pid)
    assert os.getpriority(os.PRIO_PROCESS, pids[0]) == min(19, ours + 5)
    daemon.signal(signal.SIGKILL)
    daemon.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    daemon.start()
    daemon.wait_for(lambda: len(scoring_processes(daemon)) == len(os.sched_getaffinity(0)))
    pids = scoring_processes(daemon)
    assert daemon.signal(signal.SIGTERM) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list((daemon.root / poison.DIRECTORY).iterdir()) == []


def test_a_killed_process_is_replaced_and_nothing_is_lost(daemon: Any, measurement: Measure) -> None:
    uids = put(daemon, measurement, range(2000))
    daemon.start(workers=2, batch_rows=100)
    killed = 0
    while killed < 4:
        for pid in scoring_processes(daemon)[:1]:
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            killed += 1
        time.sleep(0.05)
    daemon.wait_for(lambda: len(scoring_processes(daemon)) == 2)
    settled(daemon, uids)
    assert exits(daemon, "died") >= 1
    assert daemon.process.poll() is None
    daemon.wait_until_ready()


def test_a_process_that_dies_with_nothing_to_do_is_replaced_and_nothing_is_suspect(
    daemon: Any, measurement: Measure
) -> None:
    daemon.start(workers=1)
    daemon.wait_for(lambda: len(scoring_processes(daemon)) == 1)
    for number in range(3):
        [pid] = scoring_processes(daemon)
        os.kill(pid, signal.SIGKILL)
        if number == 2:  # found dead when there is work
            uids = put(daemon, measurement, range(1))
            assert daemon.post(uids[0]) == 200
        daemon.wait_for(lambda pid=pid: scoring_processes(daemon) not in ([], [pid]))
    settled(daemon, uids)
    assert exits(daemon, "died") == 3
    assert "uid=2" not in daemon.log.read_text()


def test_a_stopped_process_is_killed_and_replaced(daemon: Any, measurement: Measure) -> None:
    daemon.start(workers=1, document_limit_s=0.2)
    daemon.wait_for(lambda: len(scoring_processes(daemon)) == 1)
    first = put(daemon, measurement, range(1))
    daemon.wait_for(lambda: len(daemon.rows()) == 1)
    uids = put(daemon, measurement, range(1, 4000))
    daemon.wait_for(lambda: len(daemon.rows()) > 100)
    [pid] = scoring_processes(daemon)
    os.kill(pid, signal.SIGSTOP)
    daemon.wait_for(lambda: not Path(f"/proc/{pid}").exists(), 90)
    settled(daemon, [*first, *uids])
    assert exits(daemon, "stuck") == 1


def test_random_kills_of_daemon_and_processes_lose_nothing_and_blame_nobody(daemon: Any, measurement: Measure) -> None:
    chance = random.Random(4)
    uids: list[str] = []
    for round_number in range(4):
        uids += put(daemon, measurement, range(round_number * 1000, round_number * 1000 + 600))
        daemon.start(workers=2, batch_rows=chance.choice((1, 20, 200)))
        for _ in range(3):
            time.sleep(chance.uniform(0.0, 0.6))
            for pid in scoring_processes(daemon)[: chance.randrange(3)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        daemon.signal(signal.SIGKILL)
    daemon.start(workers=2)
    settled(daemon, uids)


# Poisoned -------------------------------------------------------------------------------------------------------------


def test_a_measurement_that_kills_its_process_twice_is_set_aside_and_the_others_are_scored(
    daemon: Any, measurement: Measure
) -> None:
    uids = put(daemon, measurement, range(200))
    bad = uids[77]
    daemon.start(workers=2, environ={"OONI_CRASH_AT": f"fastpath.score/{bad}"})
    settled(daemon, uids, bad)
    assert reason_of(daemon, bad).startswith("Scoring it ended the scoring process: 2 died, 0 stuck")
    assert "SIGKILL" in reason_of(daemon, bad)
    assert exits(daemon, "died") == 2
    got = daemon.metrics()
    assert got['fastpath_quarantined_total{reason="poison"}'] == 1
    assert got["fastpath_suspects"] == 0
    assert daemon.signal(signal.SIGTERM) == 0
    # After the repair it is released, and scored like any other.
    daemon.spool.release(bad)
    daemon.start()
    settled(daemon, uids)


def test_a_restart_does_not_forget_an_attempt(daemon: Any, measurement: Measure) -> None:
    uids = put(daemon, measurement, range(20))
    bad = uids[5]
    Suspects(daemon.spool).failed(bad, "died", "ended by SIGSEGV")
    daemon.start(workers=1, environ={"OONI_CRASH_AT": f"fastpath.score/{bad}"})
    settled(daemon, uids, bad)
    assert exits(daemon, "died") == 1
    assert "2 died" in reason_of(daemon, bad)


def test_a_measurement_that_takes_no_end_is_set_aside(daemon: Any, measurement: Measure) -> None:
    uids = put(daemon, measurement, range(50))
    bad = uids[20]
    file = daemon.spool.path(INCOMING, bad)
    file.unlink()
    os.mkfifo(file)  # reading it waits for a writer who never comes
    daemon.start(workers=1, document_limit_s=0.5)
    settled(daemon, uids, bad)
    assert "0 died, 2 stuck" in reason_of(daemon, bad)
    assert "took longer than 0.5 s" in reason_of(daemon, bad)
    assert exits(daemon, "stuck") == 2
    assert "in score_measurement" in daemon.log.read_text()  # the place where it hung


def test_when_every_measurement_kills_it_is_not_the_measurements(daemon: Any, measurement: Measure) -> None:
    uids = put(daemon, measurement, range(12))
    daemon.start(workers=1, environ={"OONI_CRASH_AT": "fastpath.score"})
    daemon.wait_for(lambda: b"die over every measurement" in daemon.request("GET", "/ready")[1], 40)
    daemon.wait_for(lambda: exits(daemon, "died") >= SYSTEMIC + 1, 40)
    assert daemon.spool.counts().quarantine == 0
    assert daemon.signal(signal.SIGTERM) == 0
    assert daemon.spool.counts().incoming == len(uids)
    daemon.start()  # repaired
    settled(daemon, uids)


def test_what_a_daemon_had_in_hand_when_it_was_killed_is_suspect_to_the_next(daemon: Any, measurement: Measure) -> None:
    [uid] = put(daemon, measurement, [1])
    file = daemon.spool.path(INCOMING, uid)
    body = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    daemon.start(workers=1)
    cells = daemon.root / poison.DIRECTORY
    daemon.wait_for(lambda: any(uid.encode() in path.read_bytes() for path in cells.glob("*.cell")))
    pids = scoring_processes(daemon)
    daemon.signal(signal.SIGKILL)
    for pid in pids:  # it hangs, and would end itself by its alarm
        os.kill(pid, signal.SIGKILL)
        daemon.wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    assert uid in Suspects(daemon.spool)
    assert list(cells.glob("*.cell")) == []
    file.unlink()
    file.write_bytes(body)
    daemon.start(workers=1)
    settled(daemon, [uid])


def test_attempts_are_counted_on_disk(daemon: Any, measurement: Measure) -> None:
    one, other = put(daemon, measurement, range(2))
    suspects = Suspects(daemon.spool)
    suspects.failed(one, "stuck", "took too long")
    for attempt in range(ALL_ATTEMPTS):
        assert Suspects(daemon.spool).condemned(other) is None, attempt
        Suspects(daemon.spool).trying(other)  # and the daemon dies
    suspects = Suspects(daemon.spool)
    assert "0 died, 0 stuck, 5 with the daemon" in str(suspects.condemned(other))
    assert suspects.condemned(one) is None
    suspects.trying(one)
    assert suspects.condemned(one) is None
    suspects.failed(one, "died", "ended by SIGSEGV")
    assert "1 died, 1 stuck, 0 with the daemon; last: ended by SIGSEGV" in str(Suspects(daemon.spool).condemned(one))
    suspects.clear(one)
    daemon.spool.mark_scored([other])
    assert one not in Suspects(daemon.spool)
    assert other not in Suspects(daemon.spool)  # it is not incoming any more
    assert list((daemon.root / poison.DIRECTORY).iterdir()) == []


def test_a_damaged_mark_counts_as_one_attempt(daemon: Any, measurement: Measure) -> None:
    [uid] = put(daemon, measurement, [1])
    Suspects(daemon.spool).trying(uid)
    (daemon.root / poison.DIRECTORY / f"{uid}.suspect").write_text("{")
    suspects = Suspects(daemon.spool)
    assert uid in suspects
    assert suspects.condemned(uid) is None
    assert Marks(interrupted=ALL_ATTEMPTS).condemned


# Fingerprints ---------------------------------------------------------------------------------------------------------


def confirmed(daemon: Any, uids: Sequence[str]) -> list[bool]:
    rows = dict(daemon.query("SELECT measurement_uid, confirmed FROM fastpath"))
    return [rows[uid] for uid in uids]


def test_an_update_reaches_every_process_and_a_bad_one_none(
    daemon: Any, measurement: Measure, fingerprints: Any
) -> None:
    dns, pages = fingerprints
    page = {"response": {"body": "<html>Second page of blocking</html>", "headers": {}}}
    keys = {"blocking": "http-diff", "accessible": False, "requests": [page]}
    daemon.start(workers=2, batch_rows=5, fingerprints_refresh_s=0.3)
    before = put(daemon, measurement, range(40), test_keys=keys)
    daemon.wait_for(lambda: len(daemon.rows()) == 40)
    assert set(confirmed(daemon, before)) == {False}
    pids = scoring_processes(daemon)
    store = Store(daemon.dsn)
    second = {**pages[0], "name": "sample.second", "pattern": "Second page of blocking"}
    store.replace_fingerprints(dns, [*pages, second])
    daemon.wait_for(lambda: daemon.metrics()['fastpath_fingerprints{kind="http"}'] == 2)
    after = put(daemon, measurement, range(100, 180), test_keys=keys)
    daemon.wait_for(lambda: len(daemon.rows()) == 120)
    assert set(confirmed(daemon, after)) == {True}
    failures = daemon.metrics()["fastpath_fingerprints_errors_total"]
    store.replace_fingerprints([], [])
    store.close()
    daemon.wait_for(lambda: daemon.metrics()["fastpath_fingerprints_errors_total"] > failures + 1)
    still = put(daemon, measurement, range(200, 240), test_keys=keys)
    daemon.wait_for(lambda: len(daemon.rows()) == 160)
    assert set(confirmed(daemon, still)) == {True}
    assert scoring_processes(daemon) == pids  # nobody had to start anew
    assert daemon.metrics()["fastpath_match_seconds_count"] == 160


# Memory ---------------------------------------------------------------------------------------------------------------


def test_a_grown_process_is_replaced_between_two_batches(daemon: Any, measurement: Measure) -> None:
    daemon.start(workers=1, worker_recycle_bytes=1, batch_rows=10)
    uids = put(daemon, measurement, range(40))
    settled(daemon, uids)
    assert exits(daemon, "recycled") >= 3
    assert exits(daemon, "died") == 0


def test_a_measurement_that_wants_too_much_memory_gets_a_failed_row(daemon: Any, measurement: Measure) -> None:
    good = put(daemon, measurement, range(30))
    uid, body = measurement(99, test_keys={"blocking": False, "requests": [[]] * 4_000_000})
    daemon.spool.put(uid, body, "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000")
    daemon.start(workers=1, worker_memory_bytes=150_000_000, worker_recycle_bytes=100_000_000)
    settled(daemon, [*good, uid])
    reasons = dict(daemon.query("SELECT measurement_uid, reason FROM fastpath WHERE reason IS NOT NULL"))
    assert reasons == {uid: "internal_error:MemoryError"}
    assert exits(daemon, "died") == 0


# The process by itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path: Path) -> Any:
    descriptor = create_cell_file(tmp_path / "cell")
    made = ScoringProcess(
        "worker-test",
        spool_root=tmp_path / "spool",
        cell_descriptor=descriptor,
        document_limit_s=30,
        memory_limit_bytes=0,
    )
    made.set_up()
    yield made
    if Path(f"/proc/{made.pid}").exists():
        made.kill()
    made.close()
    os.close(descriptor)


def test_a_process_ignores_the_signals_that_are_meant_for_its_daemon(process: ScoringProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process.pid, number)
    process.ping()


def test_a_list_that_does_not_compile_leaves_the_former_in_use(
    process: ScoringProcess, measurement: Measure, tmp_path: Path, fingerprints: Any
) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=0)
    uid, body = measurement(1)
    spool.put(uid, body, "")
    assert process.load(encode(Load("declared", *fingerprints))).problem == ""
    broken: Any = [{"name": "no columns", "expected_countries": 1}, 5]
    loaded = process.load(encode({"type": "Load", "mode": "declared", "dns": [], "http": [{"name": broken}]}))
    assert loaded.http == 0
    process.begin([uid])
    [scored] = process.finish().results
    assert scored.row is not None
    assert scored.row.measurement_uid == uid
    assert process.resident_bytes > 1_000_000


def test_a_process_that_does_not_speak_our_language_is_lost(process: ScoringProcess) -> None:
    with pytest.raises(ProcessLost):
        process.load(b"nonsense")


def test_a_cell_tells_what_is_in_hand(tmp_path: Path) -> None:
    descriptor = create_cell_file(tmp_path / "cell")
    with pytest.raises(BlockingIOError):
        create_cell_file(tmp_path / "cell")
    cell = Cell(descriptor)
    cell.begin("some uid")
    steps, uid = cell.look()
    assert uid == "some uid"
    cell.end()
    assert cell.look() == (steps + 1, "")
    cell.close()
    os.close(descriptor)
