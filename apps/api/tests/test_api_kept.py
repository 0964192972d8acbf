"""Answers that are kept for minutes: when they are made anew, by whom, and what others get meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from api.app import create_app
from api.config import ApiSettings
from api.errors import ApiError, too_slow
from api.kept import FAILURE_KEPT_S, Kept
from api.reading import CLIENT_LEFT
from core.db import DatabaseUnavailable

PATHS = ("asn_by_month", "countries_by_month", "global_overview", "global_overview_by_month", "countries", "networks")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Maker:
    """Makes numbers, or fails."""

    def __init__(self) -> None:
        self.made = 0
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.made += 1
        if self.failure is not None:
            raise self.failure
        return self.made


def test_an_answer_is_made_again_when_it_is_old() -> None:
    clock, make = Clock(), Maker()
    kept = Kept("answer", make, kept_s=10, now=clock)
    assert [kept.value(), kept.value()] == [1, 1]
    clock.at += 9.9
    assert kept.value() == 1
    clock.at += 0.2
    assert kept.value() == 2


def test_an_old_answer_outlives_a_failure_that_is_remembered() -> None:
    clock, make = Clock(), Maker()
    kept = Kept("answer", make, kept_s=10, now=clock)
    assert kept.value() == 1
    make.failure = DatabaseUnavailable("away")
    clock.at += 11
    assert [kept.value(), kept.value()] == [1, 1]
    assert make.made == 2  # not a third time
    make.failure = None
    clock.at += FAILURE_KEPT_S
    assert kept.value() == 3


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), psycopg.errors.QueryCanceled("slow"), too_slow("")])
def test_a_first_answer_that_fails_is_not_tried_again_at_once(failure: Exception) -> None:
    clock, make = Clock(), Maker()
    make.failure = failure
    kept = Kept("answer", make, kept_s=10, now=clock)
    with pytest.raises(type(failure)):
        kept.value()
    make.failure = None
    with pytest.raises(ApiError, match=r"could not be made.*Try again"):
        kept.value()
    clock.at += FAILURE_KEPT_S
    assert kept.value() == 2


def test_a_client_that_leaves_is_no_failure() -> None:
    make = Maker()
    make.failure = ApiError(CLIENT_LEFT, "The client has left.")
    kept = Kept("answer", make, kept_s=10, now=Clock())
    with pytest.raises(ApiError):
        kept.value()
    make.failure = None
    assert kept.value() == 2


def test_who_waits_for_a_first_answer_holds_a_place_and_gets_it() -> None:
    begun, go, held = threading.Event(), threading.Event(), []

    def make() -> int:
        begun.set()
        assert go.wait(30)
        return 7

    @contextmanager
    def place() -> Iterator[None]:
        held.append("in")
        go.set()
        yield
        held.append("out")

    kept = Kept("answer", make, kept_s=10, waiting=place)
    first = threading.Thread(target=kept.value)
    first.start()
    assert begun.wait(30)
    assert kept.value() == 7
    first.join(30)
    assert held == ["in", "out"]


@pytest.fixture
def app(dsn: str, tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    made: list[Flask] = []

    def make(**settings: Any) -> Flask:
        paths: dict[str, Any] = {"spool_directory": str(tmp_path / "spool"), "state_directory": str(tmp_path / "state")}
        made.append(create_app(ApiSettings(db_uri=dsn, store_url=f"file://{tmp_path}", **paths, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.extensions["api"].close()


def count(dsn: str, number: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO counters_month_country (measurement_start_month, test_name, probe_cc, ok_count, anomaly_count,"
            " confirmed_count, failure_count, measurement_count) VALUES ('2024-01-01', %s, 'IT', 1, 0, 0, 0, 1)",
            [f"test_{number}"],
        )


def measurements(app: Flask) -> int:
    reply: Any = app.test_client().get("/api/_/global_overview").json
    return int(reply["measurement_count"])


def test_statistics_without_parameters_are_read_every_few_minutes(app: Callable[..., Flask], dsn: str) -> None:
    kept, read = app(), app(statistics_kept_s=0)
    before = measurements(kept)
    count(dsn, 1)
    assert measurements(kept) == before
    assert measurements(read) == before + 1


def test_a_database_that_is_slow_is_asked_once_a_minute(app: Callable[..., Flask], dsn: str) -> None:
    settings = {"statistics_kept_s": 0.01, "statement_timeout_ms": 300}
    known, new = app(**settings).test_client(), app(**settings).test_client()
    before = known.get("/api/_/countries").json
    time.sleep(0.02)
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE counters_month_country IN ACCESS EXCLUSIVE MODE")
        assert known.get("/api/_/countries").json == before
        assert [new.get("/api/_/countries").status_code for _ in range(2)] == [504, 503]
        connection.rollback()
    assert new.get("/api/_/countries").status_code == 503


def test_the_statistics_that_are_kept_outlive_the_database(
    app: Callable[..., Flask], dsn: str, pg_cluster: Any
) -> None:
    client = app(statistics_kept_s=0.01).test_client()
    before = {path: client.get(f"/api/_/{path}").json for path in PATHS}
    time.sleep(0.02)
    pg_cluster.stop()
    try:
        assert {path: client.get(f"/api/_/{path}").json for path in PATHS} == before
    finally:
        pg_cluster.start()
