"""What the benchmark of reading reports rests on: the log taken apart, percentiles, and the questions themselves."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest
from tests.load.bench_api import aggregations, lists, statistics
from tests.load.bench_api.database import PREFIX, Log, explain
from tests.load.bench_api.facts import Facts
from tests.load.bench_api.question import GOALS_MS
from tests.load.bench_api.timing import percentile

from api.app import create_app
from api.config import ApiSettings
from api.services import EXTENSION
from devstack.postgres import PostgresCluster

FACTS = Facts(
    today=date(2026, 10, 20),
    country="IR",
    small_country="BI",
    asn=385252,
    domain="www.elriradio.com.example",
    input="http://www.elriradio.com.example/?a='1'",
    uid="20261009010657.966731_IR_webconnectivity_7a2a5ba915a773ee",
    report_id="20261009T010633Z_webconnectivity_IR_385252_n1_OUrUSsirluGlQljk",
    report_input="https://seronelejournal.com.example/",
    software_version="3.36.1",
    engine_version="3.41.1",
    test_version="0.5.28",
    run_link=10000,
)


@pytest.fixture
def place() -> Iterator[Path]:
    # Not below pytest's own temporary directory, which root keeps closed to the user that runs the server.
    directory = Path(tempfile.mkdtemp(prefix="pgtest-"))
    yield directory
    shutil.rmtree(directory)


def test_the_log_tells_what_a_request_cost_and_with_which_values(place: Path) -> None:
    with PostgresCluster(place, fsync=False, settings={"log_line_prefix": PREFIX}) as server:
        log = Log(server.log_file, server.dsn())
        log.write_all(wanted=True)
        with psycopg.connect(server.dsn(), application_name="asks") as connection:
            connection.execute("SELECT pg_sleep(%s), %s::text\n  AS note", [0.05, "it's\n$1"])
        with psycopg.connect(server.dsn(), application_name="other") as connection:
            connection.execute("SELECT 1")
        found = log.since("asks")
        log.write_all(wanted=False)
        (slow,) = [statement for statement in found if "pg_sleep" in statement.sql]
        assert 50 <= slow.ms < 5000
        assert slow.sql.endswith("AS note")
        assert slow.parameters == {"1": "'0.05'", "2": "'it''s\n$1'"}
        assert not any("SELECT 1" in statement.sql for statement in found)
        assert "Execution Time" in explain(server.dsn(), slow)
        assert log.since("asks") == []


def test_percentiles_are_values_that_were_measured() -> None:
    values = [number / 1000 for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([0.25], 0.99) == 250
    assert math.isnan(percentile([], 0.5))


def test_there_is_a_question_for_every_statistic_and_no_name_twice(dsn: str, tmp_path: Path) -> None:
    found = [*lists.questions(FACTS), *aggregations.questions(FACTS), *statistics.questions(FACTS)]
    assert len({question.name for question in found}) == len(found) >= 40
    assert {question.group for question in found} == set(GOALS_MS)
    asked = {question.path.partition("?")[0] for question in found}
    app = create_app(
        ApiSettings(db_uri=dsn, spool_directory=str(tmp_path / "spool"), store_url=f"file://{tmp_path}/objects",
                    state_directory=str(tmp_path))
    )  # fmt: skip
    app.extensions[EXTENSION].close()
    routes = {str(rule) for rule in app.url_map.iter_rules() if rule.endpoint.startswith("statistics_")}
    assert routes
    assert routes <= asked
    assert asked <= {str(rule) for rule in app.url_map.iter_rules()}
