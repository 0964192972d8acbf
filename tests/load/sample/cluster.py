"""A PostgreSQL server of our own, and how a sample gets into it fast."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from tests.load.sample import loading
from tests.load.sample.draw import Sampler
from tests.load.sample.loading import Clock, Say

from core import schema
from devstack.postgres import PostgresCluster

_UNFINISHED = "sample_unfinished"


def machine_settings() -> dict[str, str]:
    """The settings that roles/postgresql gives a host with this machine's memory and 200 connections."""
    memory = memory_mb()
    return {
        "max_connections": "200",
        "shared_buffers": f"{max(memory // 4, 128)}MB",
        "effective_cache_size": f"{max(memory * 3 // 4, 256)}MB",
        "maintenance_work_mem": f"{min(max(memory // 16, 64), 2048)}MB",
        "work_mem": f"{min(max(memory // 4 // 200, 4), 64)}MB",
        "wal_buffers": "16MB",
        "min_wal_size": "512MB",
        "max_wal_size": "4GB",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "on",
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
    }


def loading_settings() -> dict[str, str]:
    """Settings for as long as the data would be made anew after a crash anyway."""
    return machine_settings() | {
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_compression": "off",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "1h",
        "autovacuum": "off",
    }


def memory_mb() -> int:
    """Return the memory of the machine, in MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def load(directory: Path, database: str, sampler: Sampler, say: Say, clock: Clock) -> None:
    """Load into a database of a cluster that nobody else uses; both are made. At the end the server is stopped.

    The database gets its name when it is whole and on the disk, so an interrupted load leaves none of that name.
    """
    memory = f"{min(max(memory_mb() // 16, 64), 1024)}MB"
    with clock.part("server and schema"):
        cluster = PostgresCluster(directory, fsync=False, settings=loading_settings())
        cluster.start()
    try:
        with clock.part("server and schema"):
            _drop(cluster, _UNFINISHED)
            cluster.ensure_database(_UNFINISHED)
            schema.upgrade(cluster.dsn(_UNFINISHED))
        loading.fast(cluster.dsn(_UNFINISHED), sampler, say, clock, memory)
        with clock.part("everything to the disk"):
            with _admin(cluster) as connection:
                connection.execute("CHECKPOINT")
            os.sync()
        with clock.part("everything to the disk"), _admin(cluster) as connection:
            _drop(cluster, database)
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(_UNFINISHED), sql.Identifier(database))
            )
    finally:
        started = time.perf_counter()
        cluster.stop(timeout=300)
        os.sync()
        clock.parts["everything to the disk"] = (
            clock.parts.get("everything to the disk", 0.0) + time.perf_counter() - started
        )


def has_database(cluster: PostgresCluster, database: str) -> bool:
    """Whether a running cluster has a database of this name."""
    with _admin(cluster) as connection:
        row = connection.execute("SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", [database]).fetchone()
    return row == (True,)


def _drop(cluster: PostgresCluster, database: str) -> None:
    with _admin(cluster) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


@contextlib.contextmanager
def _admin(cluster: PostgresCluster) -> "Iterator[psycopg.Connection]":
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        yield connection
