"""Take, score, write, mark: with a real spool and a real database, and with everything that can go wrong in between."""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY

from core.spool import INCOMING, QUARANTINE, SCORED, Spool
from fastpath.config import FastpathSettings
from fastpath.fingerprint_source import FingerprintSource, import_directory
from fastpath.fingerprints import FingerprintError
from fastpath.health import DatabaseHealth
from fastpath.intake import IntakeQueue
from fastpath.pipeline import Worker
from fastpath.row import fallback_row
from fastpath.scorer import Kind, Scored
from fastpath.scoring_process import ScoringLoop
from fastpath.scoring_protocol import Cell, Loaded, Score, Scores, Setup, requests
from fastpath.slot import Finished
from fastpath.store import Store, Unavailable
from fastpath.sweeper import Sweeper
from fastpath.writer import ROW_REFUSED, Stopping, Writer

Measure = Callable[..., tuple[str, bytes]]


class LocalScorer:
    """What a slot does, with the loop of a scoring process but without the process."""

    def __init__(self, loop: ScoringLoop, source: FingerprintSource) -> None:
        self.on_wait: Callable[[], None] = lambda: None
        self._loop = loop
        self._source = source
        self._uids: list[str] = []

    @property
    def ready(self) -> bool:
        return self._source.loaded

    def arrange(self, uids: Any) -> list[list[str]]:
        return [list(uids)]

    def begin(self, uids: Any) -> None:
        self._uids = list(uids)

    def finish(self) -> Finished:
        results = self.score_batch(self._uids)
        left = self._uids[len(results) :]
        return Finished(results, [left] if left else [])

    def score_batch(self, uids: Any) -> list[Scored]:
        current = self._source.current
        assert current is not None
        self._loop.answer(requests.decode(current.request))
        answer = self._loop.answer(Score(list(uids)))
        assert isinstance(answer, Scores)
        return answer.results

    def settled(self, uid: str) -> None:
        raise AssertionError(uid)

    def idle(self) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    """One pipeline whose worker is called by hand."""

    def __init__(self, dsn: str, root: Path, fingerprints: Any, **settings: Any) -> None:
        self.dsn = dsn
        self.settings = FastpathSettings(
            db_uri=dsn, spool_directory=str(root), spool_min_free_bytes=0, retry_min_s=0.01, retry_max_s=0.1, **settings
        )
        self.spool = Spool(root, min_free_bytes=0)
        self.stores: list[Store] = []
        self.store = self.new_store()
        if fingerprints is not None:
            self.store.replace_fingerprints(*fingerprints)
        with tempfile.TemporaryFile() as cell:
            cell.truncate(4096)
            loop = ScoringLoop(Cell(cell.fileno()))
        loop.answer(Setup(str(root), 0, 0))

        def trial(request: bytes) -> Loaded:
            answer = loop.answer(requests.decode(request))
            assert isinstance(answer, Loaded)
            return answer

        self.source = FingerprintSource(self.new_store(), trial, refresh_s=3600, minimum=1)
        self.queue = IntakeQueue(self.settings.queue_size)
        self.stop = threading.Event()
        self.health = DatabaseHealth()
        self.scorer = LocalScorer(loop, self.source)
        self.writer = Writer(self.store, self.health, self.stop, retry_min_s=0.01, retry_max_s=0.1)
        self.worker = Worker("worker", self.scorer, self.writer, self.spool, self.queue, self.stop, self.settings)
        self.sweeper = Sweeper(self.spool, self.queue, self.new_store(), self.health, self.stop, self.settings)

    def new_store(self, dsn: str | None = None) -> Store:
        self.stores.append(Store(dsn or self.dsn))
        return self.stores[-1]

    def close(self) -> None:
        self.stop.set()
        if self.worker.is_alive():
            self.worker.join(10)
        for store in self.stores:
            store.close()

    def put(self, *measurements: tuple[str, bytes], report_id: str = "") -> list[str]:
        for uid, body in measurements:
            self.spool.put(uid, body, report_id)
        return [uid for uid, _ in measurements]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type, unused-ignore] # tests

    def state(self, uid: str) -> str | None:
        found = [state for state in (INCOMING, SCORED, QUARANTINE) if self.spool.path(state, uid).exists()]
        return found[0] if len(found) == 1 else ",".join(found) or None


@pytest.fixture
def make_bench(fastpath_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(fingerprints: Any, **settings: Any) -> Bench:
        made.append(Bench(fastpath_dsn, tmp_path / "spool", fingerprints, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench], fingerprints: Any) -> Bench:
    made = make_bench(fingerprints)
    assert made.source.refresh()
    return made


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def outcomes() -> dict[str, float]:
    return {
        outcome: sample("fastpath_measurements_total", outcome=outcome)
        for outcome in ("row", "fallback", "duplicate", "discarded", "quarantined", "missing", "not_written")
    }


def growth(before: dict[str, float]) -> dict[str, float]:
    return {key: value - before[key] for key, value in outcomes().items() if value != before[key]}


def test_a_measurement_becomes_one_row_and_moves_on(bench: Bench, measurement: Measure) -> None:
    before = outcomes()
    uids = bench.put(*(measurement(n) for n in range(30)))
    bench.worker.process_batch(uids)
    assert sorted(uid for (uid,) in bench.query("SELECT measurement_uid FROM fastpath")) == sorted(uids)
    assert {bench.state(uid) for uid in uids} == {SCORED}
    assert growth(before) == {"row": 30}
    bench.worker.process_batch(uids)
    assert growth(before) == {"row": 30, "duplicate": 30}
    assert bench.store.counters_difference() == []


def test_each_document_ends_where_it_belongs(bench: Bench, measurement: Measure) -> None:
    before = outcomes()
    good = measurement(1)
    no_report = measurement(2, report_id=None)
    unknown_country = measurement(3, probe_cc="zz")
    unknown_network = measurement(4, probe_asn="AS0")
    odd = measurement(5, test_start_time="yesterday")
    garbage = (measurement(6)[0], b"\xff not json")
    uids = bench.put(good, no_report, unknown_country, unknown_network, odd, garbage)
    torn = bench.put(measurement(7))[0]
    bench.spool.path(INCOMING, torn).write_bytes(b"SPOOL1 half a fi")
    gone = measurement(8)[0]
    bench.worker.process_batch([*uids, torn, gone])
    rows = dict(bench.query("SELECT measurement_uid, reason FROM fastpath"))
    assert rows == {good[0]: None, odd[0]: "bad_test_start_time"}
    assert {bench.state(uid) for uid in uids[:5]} == {SCORED}
    assert bench.state(garbage[0]) == QUARANTINE
    assert bench.state(torn) == QUARANTINE
    reason = bench.spool.path(QUARANTINE, torn).with_suffix(".reason").read_text()
    assert reason.startswith("The spool file of")
    assert growth(before) == {"row": 2, "discarded": 3, "quarantined": 2, "missing": 1}
    assert bench.store.counters_difference() == []


def test_the_report_id_of_the_path_identifies_what_the_body_does_not(bench: Bench, measurement: Measure) -> None:
    uid, _ = measurement(1)
    report_id = "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000"
    bench.put((uid, b"no json"), report_id=report_id)
    bench.worker.process_batch([uid])
    assert bench.query("SELECT report_id, probe_asn, msm_failure FROM fastpath") == [(report_id, 30722, True)]
    assert bench.state(uid) == SCORED


def test_one_poison_row_does_not_hold_up_the_others(
    bench: Bench, measurement: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outcomes()
    uids = bench.put(*(measurement(n) for n in range(40)))
    score_batch = bench.scorer.score_batch

    def poisoned(asked: Any) -> Any:
        results = score_batch(asked)
        return [
            msgspec.structs.replace(scored, row=msgspec.structs.replace(scored.row, platform="nul\0"))
            if scored.row is not None and scored.uid in (uids[3], uids[22])
            else scored
            for scored in results
        ]

    monkeypatch.setattr(bench.scorer, "score_batch", poisoned)
    bench.worker.process_batch(uids)
    reasons = dict(bench.query("SELECT measurement_uid, reason FROM fastpath WHERE reason IS NOT NULL"))
    assert reasons == {uids[3]: ROW_REFUSED, uids[22]: ROW_REFUSED}
    assert (
        bench.query("SELECT test_name::text, msm_failure FROM fastpath WHERE reason IS NOT NULL")
        == [("web_connectivity", True)] * 2
    )
    assert growth(before) == {"row": 38, "fallback": 2}
    assert {bench.state(uid) for uid in uids} == {SCORED}
    assert bench.store.counters_difference() == []


def test_what_no_row_can_hold_is_set_aside_with_the_reason(bench: Bench, measurement: Measure) -> None:
    before = outcomes()
    uids = bench.put(*(measurement(n) for n in range(4)))
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE fastpath ADD CONSTRAINT poison CHECK (measurement_uid <> '" + uids[2] + "')")
        try:
            bench.worker.process_batch(uids)
        finally:
            connection.execute("ALTER TABLE fastpath DROP CONSTRAINT poison")
    assert growth(before) == {"row": 3, "quarantined": 1}
    assert bench.state(uids[2]) == QUARANTINE
    assert "poison" in bench.spool.path(QUARANTINE, uids[2]).with_suffix(".reason").read_text()
    assert bench.store.counters_difference() == []


def test_a_lost_connection_costs_a_retry_only(bench: Bench, measurement: Measure) -> None:
    bench.worker.process_batch(bench.put(measurement(1)))
    bench.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastpath'")
    errors = sample("fastpath_database_errors_total", kind="unavailable")
    uids = bench.put(measurement(2), measurement(3))
    bench.worker.process_batch(uids)
    assert sample("fastpath_database_errors_total", kind="unavailable") > errors
    assert bench.query("SELECT count(*) FROM fastpath") == [(3,)]
    assert sample("fastpath_database_up") == 1
    assert bench.store.counters_difference() == []


def test_a_deadlock_is_tried_again(bench: Bench, measurement: Measure) -> None:
    before = sample("fastpath_database_errors_total", kind="conflict")
    uids = bench.put(measurement(1, probe_cc="IT"))
    with psycopg.connect(bench.dsn) as other:
        other.execute("SET deadlock_timeout = '60s'")  # so that the other side is the one to be aborted
        other.execute("LOCK TABLE counters_network")
        batch = threading.Thread(target=bench.worker.process_batch, args=(uids,))
        batch.start()
        wait_for(lambda: bench.query("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
        other.execute("LOCK TABLE fastpath, counters_input")
    batch.join(10)
    assert not batch.is_alive()
    assert sample("fastpath_database_errors_total", kind="conflict") > before
    assert bench.query("SELECT count(*) FROM fastpath") == [(1,)]
    assert bench.store.counters_difference() == []


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_while_the_database_is_away_a_batch_waits_and_a_stop_leaves_it_in_the_spool(
    bench: Bench, measurement: Measure
) -> None:
    uids = bench.put(measurement(1))
    writer = Writer(bench.new_store("host=/nonexistent"), bench.health, bench.stop, retry_min_s=0.01, retry_max_s=0.05)
    worker = Worker("worker", bench.scorer, writer, bench.spool, bench.queue, bench.stop, bench.settings)
    threading.Timer(0.3, bench.stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopping):
        worker.process_batch(uids)
    assert 0.25 < time.monotonic() - started < 3
    assert bench.state(uids[0]) == INCOMING
    assert not bench.health.up
    bench.worker.process_batch(uids)
    assert bench.health.up
    assert bench.state(uids[0]) == SCORED


def test_a_score_only_run_writes_and_moves_nothing(
    make_bench: Callable[..., Bench], fingerprints: Any, measurement: Measure
) -> None:
    bench = make_bench(fingerprints, write_to_db=False)
    assert bench.source.refresh()
    before = outcomes()
    uids = bench.put(measurement(1), measurement(2))
    bench.worker.process_batch(uids)
    assert bench.query("SELECT count(*) FROM fastpath") == [(0,)]
    assert {bench.state(uid) for uid in uids} == {INCOMING}
    assert growth(before) == {"not_written": 2}


def test_a_full_spool_disk_does_not_stop_scored_rows(
    bench: Bench, measurement: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = bench.put(measurement(1))
    mark_scored = bench.spool.mark_scored

    def fails(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.spool, "mark_scored", fails)
    bench.worker.process_batch(uids)
    assert bench.state(uids[0]) == INCOMING
    monkeypatch.setattr(bench.spool, "mark_scored", mark_scored)
    bench.worker.process_batch(uids)
    assert bench.state(uids[0]) == SCORED
    assert bench.query("SELECT count(*) FROM fastpath") == [(1,)]


# The sweep -----------------------------------------------------------------------------------------------------------


def test_a_sweep_queues_what_nobody_announced_oldest_first(bench: Bench, measurement: Measure) -> None:
    uids = bench.put(*(measurement(n) for n in range(20)))
    assert bench.queue.offer(uids[0])
    assert bench.sweeper.sweep(0) == 19
    assert bench.queue.take(100, 0, 0) == uids
    assert bench.sweeper.sweep(0) == 0  # they are in flight
    bench.queue.done(uids)
    assert bench.sweeper.sweep(3600) == 0  # too young
    assert bench.sweeper.sweep(0) == 20


def test_a_sweep_feeds_a_small_queue_to_the_end(
    make_bench: Callable[..., Bench], fingerprints: Any, measurement: Measure
) -> None:
    bench = make_bench(fingerprints, queue_size=8, batch_rows=4, batch_linger_s=0.0)
    assert bench.source.refresh()
    uids = bench.put(*(measurement(n) for n in range(60)))
    fed: list[int] = []
    sweeping = threading.Thread(target=lambda: fed.append(bench.sweeper.sweep(0)))
    sweeping.start()
    longest = 0
    bench.worker.start()
    while sweeping.is_alive():
        longest = max(longest, len(bench.queue))
        time.sleep(0.001)
    wait_for(lambda: bench.query("SELECT count(*) FROM fastpath") == [(60,)])
    assert fed == [60]
    assert longest <= 6  # three quarters of the queue; the rest is for what comes in at the moment
    assert {bench.state(uid) for uid in uids} == {SCORED}
    assert bench.store.counters_difference() == []


def test_looking_around_shows_the_spool_and_the_database(bench: Bench, measurement: Measure) -> None:
    bench.put(measurement(1), measurement(2))
    time.sleep(0.01)
    bench.sweeper.look_around()
    assert sample("fastpath_spool_files", state="incoming") == 2
    assert sample("fastpath_spool_oldest_seconds") > 0
    assert sample("fastpath_database_up") == 1


# The fingerprints ----------------------------------------------------------------------------------------------------


def test_nothing_is_scored_before_fingerprints_are_loaded(
    make_bench: Callable[..., Bench], fingerprints: Any, measurement: Measure
) -> None:
    bench = make_bench(None)
    assert not bench.source.refresh()  # the tables are empty
    assert bench.source.current is None
    [uid] = bench.put(measurement(1))
    assert bench.queue.offer(uid)
    bench.worker.start()
    time.sleep(0.3)
    assert bench.state(uid) == INCOMING
    bench.store.replace_fingerprints(*fingerprints)
    assert bench.source.refresh()
    wait_for(lambda: bench.state(uid) == SCORED)


def test_a_failed_refresh_keeps_the_former_fingerprints(bench: Bench, fingerprints: Any) -> None:
    former = bench.source.current
    failures = sample("fastpath_fingerprints_errors_total")
    bench.query("DELETE FROM fingerprints_http RETURNING 1")
    assert not bench.source.refresh()
    bench.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastpath'")
    assert not bench.source.refresh()
    assert bench.source.current is former
    assert sample("fastpath_fingerprints_errors_total") == failures + 2
    bench.store = bench.new_store()
    bench.store.replace_fingerprints(*fingerprints)
    assert bench.source.refresh()
    assert bench.source.current is former  # nothing changed, so nothing is compiled again
    dns, http = fingerprints
    bench.store.replace_fingerprints([*dns, {**dns[0], "name": "sample.second"}], http)
    assert bench.source.refresh()
    assert bench.source.current is not former
    assert sample("fastpath_fingerprints", kind="dns") == 2


def test_fingerprints_change_the_score_of_what_comes_later(
    bench: Bench, measurement: Measure, fingerprints: Any
) -> None:
    page = {"response": {"body": f"<html>{fingerprints[1][0]['pattern']}</html>", "headers": {}}}
    keys = {"blocking": "http-diff", "accessible": False, "requests": [page]}
    uids = bench.put(measurement(1, test_keys=keys, probe_cc="IT"))
    bench.worker.process_batch(uids)
    assert bench.query("SELECT confirmed, scores->'fingerprints'->0->>'name' FROM fastpath") == [(True, "sample.http")]


def test_importing_refuses_what_is_no_list_and_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(FingerprintError, match="fingerprints_dns"):
        import_directory(bench.store, tmp_path)
    incomplete = [{"name": "sample.incomplete"}]
    for name in ("fingerprints_dns.json", "fingerprints_http.json"):
        (tmp_path / name).write_text(json.dumps(incomplete))
    with pytest.raises(FingerprintError, match="has no scope"):
        import_directory(bench.store, tmp_path)
    assert len(bench.store.fingerprints()[0]) == 1


def test_scoring_tells_the_kinds_apart(bench: Bench, measurement: Measure) -> None:
    uids = bench.put(measurement(1), measurement(2, report_id=None))
    kinds = [scored.kind for scored in bench.scorer.score_batch([*uids, measurement(3)[0]])]
    assert kinds == [Kind.ROW, Kind.DISCARDED, Kind.MISSING]


def test_a_ping_of_nothing_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        Store("host=/nonexistent").ping()


def test_a_writer_that_waits_for_the_database_shows_that_it_is_alive() -> None:
    """Else the service manager would restart the daemon every two minutes of an outage."""
    stop = threading.Event()
    signs: list[float] = []

    def sign() -> None:
        signs.append(time.monotonic())
        if len(signs) == 3:
            stop.set()

    writer = Writer(
        Store("postgresql://127.0.0.1:1/nothing?connect_timeout=1"),
        DatabaseHealth(),
        stop,
        retry_min_s=0.01,
        retry_max_s=0.02,
    )
    writer.on_attempt = sign
    uid = "20240101000000.000000_IT_ndt_0123456789abcdef"
    row = fallback_row(uid, None, "invalid_json", "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop")
    with pytest.raises(Stopping):
        writer.write([row])
    assert len(signs) == 3
