"""The fastpath writes and reruns while the analysis job repairs: afterwards counters equal rows, exactly."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg

from fastpath.row import Row, fallback_row
from fastpath.store import Conflict, Store

DAYS = ("2024-01-02", "2024-01-03")
REPAIRS = 6
MOST_ROWS = 80_000
DAMAGE = (
    "LOCK TABLE counters_input IN EXCLUSIVE MODE; UPDATE counters_input SET ok_count = ok_count + 3",
    "LOCK TABLE counters_country IN EXCLUSIVE MODE; UPDATE counters_country SET failure_count = failure_count + 2",
)
REPORT_ID = "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000"


def row(number: int, chance: random.Random) -> Row:
    day = chance.choice(DAYS)
    uid = f"2024010203{number // 60 % 60:02d}{number % 60:02d}.{number:06d}_IT_webconnectivity_{number:016x}"
    return msgspec.structs.replace(
        fallback_row(uid, None, "pipeline_test", REPORT_ID),
        input=f"https://{chance.randrange(5)}.example/",
        probe_cc=chance.choice(("IT", "DE")),
        probe_asn=chance.randrange(3),
        test_name=chance.choice(("web_connectivity", "unheard_of")),
        measurement_start_time=datetime.fromisoformat(f"{day} 03:04:05"),
        anomaly=chance.random() < 0.3,
        confirmed=chance.random() < 0.1,
        msm_failure=chance.random() < 0.1,
    )


class Writer(threading.Thread):
    """Inserts batches, and scores some of them anew with other results, as the daemon and a rerun do."""

    def __init__(self, dsn: str, seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"writer-{seed}")
        self._dsn, self._seed, self._stop_event = dsn, seed, stop
        self.rows = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        store = Store(self._dsn)
        try:
            self._write(store)
        except BaseException as error:  # noqa: BLE001 the test reports it
            self.error = error
        finally:
            store.close()

    def _write(self, store: Store) -> None:
        chance = random.Random(self._seed)
        first = self._seed * 100_000
        while not self._stop_event.is_set() and self.rows < MOST_ROWS:
            self._persist(store.insert, [row(first + self.rows + number, chance) for number in range(20)])
            self.rows += 20
            self._persist(store.replace, [row(first + chance.randrange(self.rows), chance)])

    @staticmethod
    def _persist(work: Callable[[list[Row]], object], rows: list[Row]) -> None:
        for _ in range(20):
            try:
                work(rows)
            except Conflict:
                continue
            return
        raise AssertionError("a writer was held up twenty times in a row")


def test_repairs_race_with_writers_without_losing_a_count(dsn: str, tmp_path: Path) -> None:
    environ = os.environ | {
        "OONI_ANALYSIS_DB_URI": dsn,
        "OONI_ANALYSIS_STATE_DIRECTORY": str(tmp_path),
        "OONI_ANALYSIS_ATTEMPTS": "20",
    }

    def analysis(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "analysis", "update-counters", "--full", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    stop = threading.Event()
    writers = [Writer(dsn, seed, stop) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        with psycopg.connect(dsn, autocommit=True) as vandal:
            for _ in range(REPAIRS):
                # Errors are put in while rows arrive, under a lock because this statement keeps to no order of rows.
                for statement in DAMAGE:
                    with vandal.transaction():
                        vandal.execute(statement)
                before = sum(writer.rows for writer in writers)
                done = analysis()
                assert done.returncode == 0, done.stderr
                assert sum(writer.rows for writer in writers) > before, "nothing was written during the repair"
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers] == [None, None]
    final = analysis("--dry-run")
    assert final.returncode == 0, final.stdout
    store = Store(dsn)
    try:
        assert store.counters_difference() == []
    finally:
        store.close()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM fastpath").fetchone() == (sum(w.rows for w in writers),)
