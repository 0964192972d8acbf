"""Fixtures for every test of the repository: a real PostgreSQL, and the shared corpus where there is one.

`dsn` gives each test a database of its own with the schema in it (a copy of a template, about 0.2 s). PG_BINDIR chooses
the PostgreSQL binaries, so that the same tests run against several versions.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql

from core import schema
from devstack.postgres import PostgresCluster

ROOT = Path(__file__).parent

# Machines are noisy: how long an example takes is for benchmarks, not for tests.
hypothesis.settings.register_profile("house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("house")
TEMPLATE = "template_with_schema"

_numbers = itertools.count(1)


def _shared_dir() -> Path:
    return Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `corpus`, with a reason, where the corpus is absent."""
    where = _shared_dir()
    if where.is_dir():
        return
    skip = pytest.mark.skip(reason=f"no shared corpus: {where} is not a directory (set SHARED_DIR)")
    for item in items:
        if item.get_closest_marker("corpus"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The directory with the shared corpus and documents; skips where it is absent."""
    where = _shared_dir()
    if not where.is_dir():
        pytest.skip(f"no shared corpus: {where} is not a directory (set SHARED_DIR)")
    return where


@pytest.fixture(scope="session")
def pg_cluster() -> Iterator[PostgresCluster]:
    """A running PostgreSQL of this pytest process (each xdist worker has its own).

    Without fsync: these data may go when the power goes, and a kill -9 of the server does not need it.
    """
    # Not below pytest's own temporary directory, which root keeps closed to the user that runs the server.
    directory = Path(tempfile.mkdtemp(prefix="pgtest-", dir=_fast_directory()))
    cluster = PostgresCluster(directory, fsync=False)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)


def _fast_directory() -> str | None:
    """Memory, where there is enough: a database with the schema is 2800 small files."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private directory in it
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 1024**3:
        return str(memory)
    return None


@pytest.fixture(scope="session")
def pg_template(pg_cluster: PostgresCluster) -> str:
    """Name of a database with the schema applied, to be copied."""
    pg_cluster.ensure_database(TEMPLATE)
    schema.upgrade(pg_cluster.dsn(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def dsn(pg_cluster: PostgresCluster, pg_template: str) -> Iterator[str]:
    """Address of a fresh database with the schema."""
    yield from _database(pg_cluster, pg_template)


@pytest.fixture(scope="module")
def module_dsn(pg_cluster: PostgresCluster, pg_template: str) -> Iterator[str]:
    """Address of a database with the schema that one module shares."""
    yield from _database(pg_cluster, pg_template)


@pytest.fixture
def empty_dsn(pg_cluster: PostgresCluster) -> Iterator[str]:
    """Address of a fresh database without anything in it."""
    yield from _database(pg_cluster, "template1")


def _database(cluster: PostgresCluster, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _admin(cluster, create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield cluster.dsn(name)
    finally:
        if cluster.pid is None:  # the test stopped or killed the server
            cluster.start()
        _admin(cluster, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _admin(cluster: PostgresCluster, statement: sql.Composed) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(statement)
