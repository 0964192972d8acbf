"""A host with a spool, an object store in a directory and a database, on which the uploader runs as a real process."""

import contextlib
import io
import json
import os
import subprocess
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog.testing
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row

from core import schema
from core.bodies import Body, BodyReader
from core.counters import TABLES
from core.db import Pool, open_pool
from core.envelope import DocumentError, inner_document
from core.ids import new_measurement_uid
from core.objectstore import ObjectStore, open_store
from core.spool import Spool
from devstack.postgres import PostgresCluster
from uploader import __main__ as command

HOUR = datetime(2024, 1, 2, 3, tzinfo=UTC)


def submission(number: int, **more: Any) -> bytes:
    """A small submission, different for each number."""
    content = {"report_id": f"report-{number}", "input": f"https://example.com/{number}", "n": number, **more}
    return json.dumps({"format": "json", "content": content}).encode()


def document_of(body: bytes) -> bytes:
    """What a reader gets of a body: the document in it, or all of it when there is none."""
    try:
        return inner_document(body)
    except DocumentError:
        return body


def _metric(path: Path, name: str, labels: dict[str, str]) -> float:
    families = text_string_to_metric_families(path.read_text())
    [value] = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return value


@dataclass
class Host:
    """What the uploader works on."""

    root: Path
    dsn: str
    pool: Pool
    spool: Spool = field(init=False)
    objects: Path = field(init=False)
    textfile: Path = field(init=False)
    sent: dict[str, bytes] = field(default_factory=dict)
    run_program: list[str] = field(default_factory=lambda: [sys.executable, "-m", "uploader"])

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.spool = Spool(self.root / "spool")
        self.objects = self.root / "objects"
        self.textfile = self.root / "uploader.prom"

    @property
    def store_url(self) -> str:
        return f"file://{self.objects}"

    @property
    def store(self) -> ObjectStore:
        return open_store(self.store_url)

    @property
    def reader(self) -> BodyReader:
        return BodyReader(self.spool, self.store, self.pool)

    def receive(
        self,
        body: bytes,
        *,
        at: datetime = HOUR,
        cc: str = "IT",
        test_name: str = "webconnectivity",
        scored: bool = True,
        report_id: str = "20240102T030000Z_webconnectivity_IT_1_n1_0123456789abcdef",
    ) -> str:
        """Take a submission as the API does and, unless told otherwise, mark it as the fastpath does."""
        uid = new_measurement_uid(at, cc, test_name, body)
        self.spool.put(uid, body, report_id)
        if scored:
            self.spool.mark_scored([uid])
        self.sent[uid] = body
        return uid

    def receive_many(self, count: int, **options: Any) -> list[str]:
        return [
            self.receive(submission(number), at=HOUR + timedelta(seconds=number), **options) for number in range(count)
        ]

    @property
    def settings(self) -> dict[str, str]:
        """This host's settings, as environment variables."""
        return {
            "OONI_UPLOADER_SPOOL_DIRECTORY": str(self.spool.root),
            "OONI_UPLOADER_DB_URI": self.dsn,
            "OONI_UPLOADER_STORE_URL": self.store_url,
            "OONI_UPLOADER_COLLECTOR_ID": "1",
            "OONI_UPLOADER_METRICS_TEXTFILE": str(self.textfile),
            "OONI_UPLOADER_ATTEMPTS": "2",
            "OONI_UPLOADER_RETRY_MIN_S": "0.01",
        }

    def call(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the command inside this process, which is ten times as fast; what it logs is not in the result."""
        printed, complained = io.StringIO(), io.StringIO()
        with (
            unittest.mock.patch.dict(os.environ, self.settings | environment),
            unittest.mock.patch("core.log.setup"),
            structlog.testing.capture_logs(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(complained),
        ):
            code = command.main(arguments)
        return subprocess.CompletedProcess(arguments, code, printed.getvalue(), complained.getvalue())

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the command with this host's settings; keyword arguments are further environment variables."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OONI_")}
        return subprocess.run(
            [*self.run_program, *arguments],
            env=inherited | self.settings | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def succeed(self, *arguments: str, **environment: str) -> str:
        """Run the command, expect success, return what it printed."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, query: str = "SELECT * FROM jsonl ORDER BY s3path, linenum") -> list[dict[str, Any]]:
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def object_keys(self) -> list[str]:
        """Keys of the objects, sorted."""
        return sorted(str(path.relative_to(self.objects)) for path in self.objects.rglob("*.gz"))

    def metric(self, name: str, **labels: str) -> float:
        """A metric of the runs."""
        return _metric(self.textfile, name, labels)

    def figure(self, name: str, **labels: str) -> float:
        """A metric of `uploader verify`."""
        return _metric(self.textfile.with_name("uploader_verify.prom"), name, labels)

    def assert_readable(self) -> None:
        """Every measurement ever received is readable and byte for byte what was sent."""
        reader = self.reader
        for uid, body in self.sent.items():
            found = reader.read(uid)
            assert isinstance(found, Body), f"{uid} is lost"
            assert found.document == document_of(body)

    def left(self) -> list[str]:
        """What is left in the packing directory, but for the lock."""
        return sorted(path.name for path in (self.spool.root / "packing").iterdir() if path.name != "lock")


@pytest.fixture(scope="session")
def uploader_dsn(pg_cluster: PostgresCluster) -> str:
    """One database for all of these tests: a fresh copy for each would take longer than most of them run."""
    pg_cluster.ensure_database("uploader")
    schema.upgrade(pg_cluster.dsn("uploader"))
    return pg_cluster.dsn("uploader")


@pytest.fixture
def dsn(uploader_dsn: str) -> str:
    """Address of the database, with the tables that the uploader writes emptied."""
    with psycopg.connect(uploader_dsn) as connection:
        connection.execute(
            "TRUNCATE jsonl, upload_manifest, takedown_audit, fastpath, fastpath_misdated, obs_openvpn, "
            + ", ".join(table.name for table in TABLES)
        )
    return uploader_dsn


@pytest.fixture
def make_host(tmp_path: Path, dsn: str) -> Iterator[Callable[[str], Host]]:
    """Makes hosts that share one database; each has a spool and an object store of its own."""
    pool = open_pool(dsn)
    yield lambda name: Host(tmp_path / name, dsn, pool)
    pool.close()


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    """One host."""
    return make_host("host")
