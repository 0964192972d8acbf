"""The real daemon as a process of its own: signals, kill -9, and a database that goes away."""

import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.spool import INCOMING
from devstack.postgres import PostgresCluster

Measure = Callable[..., tuple[str, bytes]]


# The database goes away ----------------------------------------------------------------------------------------------


def test_an_outage_of_the_database_delays_and_loses_nothing(
    daemon: Any, measurement: Measure, pg_cluster: PostgresCluster
) -> None:
    daemon.start(queue_size=20, queue_wait_s=0.1, batch_rows=10, workers=1)
    daemon.wait_until_ready()
    first = measurement(0)
    assert daemon.post(*first) == 200
    daemon.wait_for(lambda: len(daemon.rows()) == 1)
    pg_cluster.stop()
    daemon.wait_for(lambda: daemon.request("GET", "/ready")[0] == 503)
    assert daemon.metrics()["fastpath_database_up"] == 0
    measurements = [measurement(number) for number in range(1, 60)]
    answers = [daemon.request("POST", f"/{uid}", body) for uid, body in measurements]
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses[:20] == [200] * 20
    assert answers[-1][2]["retry-after"] == "1"
    assert all(daemon.spool.path(INCOMING, uid).exists() for uid, _ in measurements)
    assert daemon.metrics()["fastpath_queue_size"] == 20
    pg_cluster.start()
    daemon.wait_for(lambda: len(daemon.rows()) == 60)
    daemon.wait_until_ready()
    assert daemon.rows() == dict.fromkeys([first[0], *(uid for uid, _ in measurements)], 1)
    assert daemon.differences() == []
    assert daemon.metrics()['fastpath_database_errors_total{kind="unavailable"}'] > 0
    log = daemon.log.read_text()
    assert log.count("database does not answer") == 1
    assert log.count("database answers again") == 1


def test_the_daemon_starts_without_a_database(daemon: Any, measurement: Measure, pg_cluster: PostgresCluster) -> None:
    pg_cluster.stop()
    daemon.start()
    uid, body = measurement(1)
    assert daemon.post(uid, body) == 200
    assert daemon.request("GET", "/ready")[0] == 503
    pg_cluster.start()
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})


def test_a_stop_during_an_outage_is_prompt_and_loses_nothing(
    daemon: Any, measurement: Measure, pg_cluster: PostgresCluster
) -> None:
    daemon.start()
    daemon.wait_until_ready()
    pg_cluster.stop()
    uid, body = measurement(1)
    assert daemon.post(uid, body) == 200
    daemon.wait_for(lambda: daemon.metrics()["fastpath_queue_size"] == 0)
    started = time.monotonic()
    assert daemon.signal(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10
    pg_cluster.start()
    daemon.start()
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})


# Signals and crashes -------------------------------------------------------------------------------------------------


class Client(threading.Thread):
    """Posts measurements until the daemon is gone; remembers which were acknowledged."""

    def __init__(self, daemon: Any, measurements: list[tuple[str, bytes]]) -> None:
        super().__init__(daemon=True)
        self.target = daemon
        self.measurements = measurements
        self.acknowledged: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=10)
        try:
            for uid, body in self.measurements:
                connection.request("POST", f"/{uid}", body)
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    self.acknowledged.append(uid)
        except (OSError, http.client.HTTPException):
            pass  # killed
        finally:
            connection.close()


def flood(daemon: Any, measurement: Measure, first: int, each: int = 400) -> list[Client]:
    clients = [Client(daemon, [measurement(first + number * each + n) for n in range(each)]) for number in range(4)]
    for client in clients:
        client.start()
    return clients


def settle(daemon: Any, clients: list[Client]) -> None:
    """Assert that all that was acknowledged, and nothing twice, is in the database when the dust has settled."""
    acknowledged = [uid for client in clients for uid in client.acknowledged]
    assert acknowledged
    daemon.wait_for(lambda: daemon.spool.counts().incoming == 0)
    rows = daemon.rows()
    assert [uid for uid in acknowledged if uid not in rows] == []
    assert set(rows.values()) == {1}
    assert daemon.spool.counts().scored == len(rows)
    assert daemon.spool.counts().quarantine == 0
    assert daemon.differences() == []


def test_kill_9_in_the_middle_loses_nothing(daemon: Any, measurement: Measure) -> None:
    clients: list[Client] = []
    for round_number, seconds in enumerate((0.05, 0.15, 0.3, 0.45)):
        daemon.start(batch_linger_s=0.01)
        mine = flood(daemon, measurement, 10_000 * round_number)
        daemon.wait_for(lambda mine=mine: any(client.acknowledged for client in mine))
        time.sleep(seconds)
        assert daemon.signal(signal.SIGKILL) == -signal.SIGKILL
        for client in mine:
            client.join(15)
        clients += mine
    daemon.start()
    settle(daemon, clients)


@pytest.mark.parametrize("point", ["after_score", "after_commit", "after_mark"])
def test_a_crash_between_any_two_steps_loses_nothing(daemon: Any, measurement: Measure, point: str) -> None:
    daemon.start(environ={"OONI_CRASH_AT": f"fastpath.{point}:2"}, batch_linger_s=0.01, batch_rows=20)
    clients = flood(daemon, measurement, 0, each=60)
    assert daemon.process is not None
    assert daemon.process.wait(20) == -signal.SIGKILL
    for client in clients:
        client.join(15)
    daemon.start()
    settle(daemon, clients)


def test_two_daemons_on_one_spool_and_database_count_once(daemon: Any, measurement: Measure, tmp_path: Path) -> None:
    uids = [measurement(number) for number in range(300)]
    for uid, body in uids:
        daemon.spool.put(uid, body, "")
    other = type(daemon)(daemon.dsn, tmp_path)
    try:
        daemon.start(batch_rows=20)
        other.start(batch_rows=20)
        daemon.wait_for(lambda: daemon.spool.counts().incoming == 0)
    finally:
        other.end()
    assert daemon.rows() == dict.fromkeys((uid for uid, _ in uids), 1)
    assert daemon.differences() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_hand_and_exits_with_0(daemon: Any, measurement: Measure, number: int) -> None:
    daemon.start()
    daemon.wait_until_ready()
    clients = flood(daemon, measurement, 0)
    daemon.wait_for(lambda: all(client.acknowledged for client in clients))
    time.sleep(0.2)
    started = time.monotonic()
    assert daemon.signal(number) == 0
    assert time.monotonic() - started < 10
    for client in clients:
        client.join(15)
    assert "unfinished=none" in daemon.log.read_text()
    assert len(daemon.rows()) == daemon.spool.counts().scored  # no batch was cut in half
    daemon.start()
    settle(daemon, clients)


def test_the_service_manager_is_told(daemon: Any, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(10)
        daemon.start(environ={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"})
        seen = {manager.recv(100) for _ in range(3)}
        assert seen == {b"READY=1", b"WATCHDOG=1"}
        assert daemon.signal(signal.SIGTERM) == 0
        while (said := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"
