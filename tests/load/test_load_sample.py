"""The sample: the same arguments give the same rows, they look like real ones, and what is loaded adds up."""

import json
from collections import Counter
from datetime import UTC, date, datetime

import psycopg
import pytest
from tests.load.sample import __main__ as command
from tests.load.sample import checks, history, loading
from tests.load.sample.draw import COLUMNS, Month, Sampler

from core.ids import parse_measurement_uid, parse_report_id
from fastpath import store

UNTIL = date(2026, 10, 20)
ROWS = 12_000
EARLY = date(2014, 3, 31)  # so that there are few months to load


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(ROWS, 7, UNTIL)


@pytest.fixture(scope="module")
def rows(sampler: Sampler) -> list[dict[str, str]]:
    lines = [
        line for month in sampler.months for chunk in sampler.chunks(month) for line in chunk.decode().splitlines()
    ]
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


def test_every_column_that_the_fastpath_writes_is_drawn() -> None:
    assert sorted(COLUMNS) == sorted(set(store.COLUMNS) - {"reason"})


def test_the_same_arguments_draw_the_same_rows_whatever_was_drawn_before(sampler: Sampler) -> None:
    month = sampler.months[-1]
    again = Sampler(ROWS, 7, UNTIL)
    assert b"".join(again.chunks(again.months[-1])) == b"".join(sampler.chunks(month))
    other = Sampler(ROWS, 8, UNTIL)
    assert b"".join(other.chunks(other.months[-1])) != b"".join(sampler.chunks(month))


def test_as_many_rows_as_asked_for_from_the_first_day_to_the_last(rows: list[dict[str, str]]) -> None:
    assert len(rows) == ROWS
    days = [row["measurement_start_time"][:10] for row in rows]
    assert days == sorted(days)
    assert days[-1] == UNTIL.isoformat()
    recent = sum(day >= "2023-10-20" for day in days) / ROWS
    assert 0.6 < recent < 0.85
    assert sum(day < "2016" for day in days) > 50


def test_few_rows_are_spread_too() -> None:
    for wanted in (1, 2, 10):
        assert sum(history.rows_per_day(wanted, 1, UNTIL).values()) == wanted


def test_identifiers_are_unique_and_name_the_day_of_the_start(rows: list[dict[str, str]]) -> None:
    assert len({row["measurement_uid"] for row in rows}) == ROWS
    for row in rows:
        day = row["measurement_start_time"][:10].replace("-", "")
        uid, report = row["measurement_uid"], row["report_id"]
        assert report.startswith(day)
        assert row["test_start_time"] <= row["measurement_start_time"]
        if row["measurement_start_time"] < "2020-11":
            assert uid.startswith(f"01{day}")
            assert len(uid) == 40
        else:
            parsed, of_report = parse_measurement_uid(uid), parse_report_id(report)
            assert (parsed.cc, of_report.cc) == (row["probe_cc"], row["probe_cc"])
            assert of_report.asn == int(row["probe_asn"])
            assert uid.startswith(day)


def test_shares_are_like_those_of_public_data(rows: list[dict[str, str]]) -> None:
    now = [row for row in rows if row["measurement_start_time"] >= "2021"]
    tests = Counter(row["test_name"] for row in now)
    assert 0.8 < tests["web_connectivity"] / len(now) < 0.93
    assert {"telegram", "whatsapp", "signal", "ndt", "tor", "psiphon", "http_invalid_request_line"} <= set(tests)
    countries = Counter(row["probe_cc"] for row in now).most_common()
    assert countries[0][1] > 4 * countries[min(15, len(countries) - 1)][1]
    assert len(countries) > 60
    assert 0.01 < sum(row["msm_failure"] == "t" for row in now) / len(now) < 0.06
    assert 0.02 < sum(row["anomaly"] == "t" for row in now) / len(now) < 0.12
    web = [row for row in now if row["test_name"] == "web_connectivity"]
    assert len(web) / len({row["report_id"] for row in web}) > 3


def test_flags_and_scores_of_a_row_agree(rows: list[dict[str, str]]) -> None:
    kinds = set()
    for row in rows:
        scores = json.loads(row["scores"])
        assert (row["anomaly"] == "t") == (scores["blocking_general"] > 0.5)
        assert (row["msm_failure"] == "t") == ("accuracy" in scores)
        assert (row["confirmed"] == "t") == scores.get("confirmed", False)
        found = scores.get("analysis", {}).get("blocking_type", "")
        assert row["blocking_type"] == found
        kinds.add(found)
    assert kinds == {"", *history.KINDS}


def test_no_target_is_blocked_twice_in_a_country(sampler: Sampler) -> None:
    assert len({(event.country, event.target) for event in sampler.events}) == len(sampler.events)
    assert any(event.confirmed for event in sampler.events)


def _loaded(dsn: str, rows: int) -> Sampler:
    sampler = Sampler(rows, 3, EARLY)
    loading.carefully(dsn, sampler, lambda _: None, loading.Clock())
    return sampler


def test_what_is_loaded_beside_other_rows_adds_up(dsn: str) -> None:
    _insert_one(dsn)
    sampler = _loaded(dsn, 3000)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM fastpath").fetchone() == (3001,)
        assert connection.execute("SELECT sum(measurement_count) FROM counters_month_country").fetchone() == (3000,)
        assert connection.execute("SELECT to_regnamespace('sample_loading')").fetchone() == (None,)
        found = connection.execute("SELECT count(*) FROM fastpath f JOIN citizenlab c ON c.url = f.input").fetchone()
        assert found is not None
        assert found[0] > 1500
        partitions = connection.execute(
            """SELECT count(DISTINCT indexes) FROM (SELECT count(*) AS indexes FROM pg_inherits i
               JOIN pg_index x ON x.indrelid = i.inhrelid
               WHERE i.inhparent = 'fastpath'::regclass GROUP BY inhrelid) p"""
        ).fetchone()
        assert partitions == (1,)
        last = sampler.months[-1].first
        uid, report_id = _first(connection, f"SELECT measurement_uid, report_id FROM fastpath_{last:%Y%m} LIMIT 1")
        assert _first(connection, f"SELECT report_id FROM fastpath_by_uid('{uid}')") == (report_id,)
        of_report = connection.execute("SELECT measurement_uid FROM fastpath_by_report_id(%s)", [report_id])
        assert uid in {row[0] for row in of_report}
    proof = checks.prove(dsn, sampler.months)
    assert proof.wrong == []
    assert proof.rows == 3000


def test_the_proof_finds_a_wrong_counter_and_a_lost_row(dsn: str) -> None:
    sampler = _loaded(dsn, 500)
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE counters_url SET ok_count = ok_count + 1 WHERE ctid = '(0,1)'")
        connection.execute("ALTER TABLE fastpath DISABLE TRIGGER USER")
        month = sampler.months[-1].first
        connection.execute(
            f"UPDATE fastpath_{month:%Y%m} SET measurement_uid = '0119990101' || substr(measurement_uid, 11)"
            f" WHERE ctid = (SELECT min(ctid) FROM fastpath_{month:%Y%m})"
        )
    wrong = checks.prove(dsn, sampler.months).wrong
    assert len(wrong) == 2
    assert any("1 of" in sentence and "counters_url" in sentence for sentence in wrong)
    assert any("1 rows" in sentence and "fastpath_misdated" in sentence for sentence in wrong)


def test_months_that_have_rows_are_not_loaded_over(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    _insert_one(dsn)
    assert command.main(["--rows", "300", "--dsn", dsn]) == 1
    said = capsys.readouterr().err
    assert "nothing is loaded over them" in said
    assert "UNTIL=" in said
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM fastpath").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM citizenlab").fetchone() == (0,)


def test_the_command_loads_proves_and_shows_what_it_takes(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--rows", "400", "--seed", "2", "--until", EARLY.isoformat(), "--dsn", dsn]) == 0
    said = capsys.readouterr().out
    assert "loaded 400 rows" in said
    assert "counters equal 400 rows" in said
    for what in ("fastpath", "index fastpath_pkey", "counters_month_country", "all: index entries of rows"):
        assert what in said


def test_a_load_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--rows", "0"]) == 1
    assert "ROWS is at least 1" in capsys.readouterr().err


def test_a_month_knows_its_rows() -> None:
    assert Month(date(2024, 1, 1), {date(2024, 1, 2): 3, date(2024, 1, 9): 4}).rows == 7


def _insert_one(dsn: str) -> None:
    """A row of this month, as the fastpath leaves it; its counters do not matter here."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """INSERT INTO fastpath
                   (measurement_uid, report_id, measurement_start_time, scores, anomaly, confirmed, msm_failure)
               VALUES ('x', '', %s, '{}', false, false, false)""",
            [datetime.now(UTC).replace(tzinfo=None)],
        )


def _first(connection: psycopg.Connection, statement: str) -> tuple[object, ...]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return tuple(row)
