"""What the tests of the daemon share: a database that is emptied and not made anew, and documents of our own."""

import hashlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from core import counters
from core.ids import new_measurement_uid
from core.spool import Spool
from devstack.postgres import PostgresCluster
from fastpath.store import Store

TABLES = (
    "fastpath",
    "fastpath_misdated",
    "obs_openvpn",
    *(table.name for table in counters.TABLES),
    "fingerprints_dns",
    "fingerprints_http",
)


@pytest.fixture(scope="session")
def fastpath_database(pg_cluster: PostgresCluster, pg_template: str) -> str:
    """Name of one database for all tests here, with few partitions; making one takes seconds, emptying it none."""
    name = "fastpath_tests"
    with psycopg.connect(pg_cluster.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(pg_template))
        )
    this_month = f"fastpath_{datetime.now(UTC):%Y%m}"
    with psycopg.connect(pg_cluster.dsn(name), autocommit=True) as connection:
        partitions = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'fastpath'::regclass"
        ).fetchall()
        for (partition,) in partitions:
            if partition not in ("fastpath_default", "fastpath_202401", this_month):
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition)))
    return name


@pytest.fixture
def fastpath_dsn(pg_cluster: PostgresCluster, fastpath_database: str) -> Iterator[str]:
    """Address of a database with the schema and nothing in it."""
    address = pg_cluster.dsn(fastpath_database)
    with psycopg.connect(address) as connection:
        for table in TABLES:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    yield address
    if pg_cluster.pid is None:  # the test stopped or killed the server
        pg_cluster.start()


def make_measurement(number: int, **changes: Any) -> tuple[str, bytes]:
    """Return a uid and the body that it belongs to; `changes` go into the measurement, None removes a key."""
    now = datetime.now(UTC)
    stamp = f"{now:%Y-%m-%d %H:%M:%S}"
    names = random.Random(number)
    content: dict[str, Any] = {
        "annotations": {"platform": "linux", "architecture": "amd64", "engine_name": "engine", "engine_version": "1.0"},
        "data_format_version": "0.2.0",
        "input": f"https://host-{names.randrange(50)}.example/{number}",
        "measurement_start_time": stamp,
        "probe_asn": f"AS{names.randrange(1, 20)}",
        "probe_cc": names.choice(["IT", "DE", "BR"]),
        "report_id": f"{now:%Y%m%dT%H%M%SZ}_webconnectivity_IT_30722_n1_{number:016d}",
        "software_name": "sample",
        "software_version": "1.0",
        "test_keys": {"accessible": True, "blocking": names.choice([False, "dns", "http-failure"]), "requests": []},
        "test_name": "web_connectivity",
        "test_runtime": 1.5,
        "test_start_time": stamp,
        "test_version": "0.4.3",
        **changes,
    }
    content = {key: value for key, value in content.items() if value is not None}
    body = json.dumps({"format": "json", "content": content}).encode()
    return new_measurement_uid(now, "IT", "webconnectivity", body), body


def make_fingerprints() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a DNS and an HTTP fingerprint as the tables have them."""
    common = {"other_names": "", "confidence_no_fp": 5, "expected_countries": "IT", "scope": "nat"}
    dns = {**common, "name": "sample.dns", "location_found": "dns", "pattern_type": "full", "pattern": "192.0.2.10"}
    http = {**common, "name": "sample.http", "location_found": "body", "pattern_type": "contains"}
    http["pattern"] = f"This page is blocked {hashlib.sha256(b'sample').hexdigest()[:8]}"
    return [dns], [http]


@pytest.fixture
def measurement() -> Any:
    """The function `make_measurement`."""
    return make_measurement


@pytest.fixture
def fingerprints() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `make_fingerprints`."""
    return make_fingerprints()


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Return when `condition` holds; fail after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free now and that the kernel does not give to outgoing connections."""
    while True:
        port = random.randrange(15_000, 30_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


class RunningDaemon:
    """A fastpath process with a spool of its own; `start` may be called again after it ended."""

    wait_for = staticmethod(wait_for)
    command = (sys.executable, "-m", "fastpath")

    def __init__(self, dsn: str, directory: Path) -> None:
        self.dsn = dsn
        self.root = directory / "spool"
        self.log = directory / "log"
        self.port, self.metrics_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self, **settings: Any) -> dict[str, str]:
        values = {
            "db_uri": self.dsn,
            "spool_directory": self.root,
            "http_port": self.port,
            "metrics_port": self.metrics_port,
            "spool_min_free_bytes": 0,
            "sweep_interval_s": 0.2,
            "sweep_older_than_s": 0.5,
            "retry_max_s": 0.3,
            **settings,
        }
        return {**os.environ, **{f"OONI_FASTPATH_{key.upper()}": str(value) for key, value in values.items()}}

    def start(self, *arguments: str, environ: dict[str, str] | None = None, **settings: Any) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *arguments], env=self.environment(**settings) | (environ or {}), stderr=log, stdout=log
            )
        wait_for(self.listening)

    def listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.request("GET", "/")[0] == 200
        except ConnectionRefusedError:
            return False

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.request("GET", "/ready")[0] == 200)

    def request(
        self, method: str, path: str, body: Any = None, **arguments: Any
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, **arguments)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()

    def post(self, uid: str, body: bytes = b"") -> int:
        return self.request("POST", f"/{uid}", body)[0]

    def metrics(self) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def signal(self, number: int, timeout_s: float = 20) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type, unused-ignore] # tests

    def rows(self) -> dict[str, int]:
        return dict(self.query("SELECT measurement_uid, count(*) FROM fastpath GROUP BY 1"))

    def differences(self) -> list[dict[str, Any]]:
        store = Store(self.dsn)
        try:
            return store.counters_difference()
        finally:
            store.close()

    @property
    def spool(self) -> Spool:
        return Spool(self.root, min_free_bytes=0)


@pytest.fixture
def daemon(fastpath_dsn: str, tmp_path: Path, fingerprints: Any) -> Iterator[RunningDaemon]:
    store = Store(fastpath_dsn)
    store.replace_fingerprints(*fingerprints)
    store.close()
    running = RunningDaemon(fastpath_dsn, tmp_path)
    yield running
    running.end()
