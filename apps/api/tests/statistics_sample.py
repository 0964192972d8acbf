"""Random measurements for tests of statistics, with the truth about them worked out from the rows by plain Python."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from counters_fill import fill_counters
from dateutil.relativedelta import relativedelta
from flask import Flask
from werkzeug.test import TestResponse

IM_TESTS = ("signal", "telegram", "whatsapp")
TOR_TESTS = ("psiphon", "riseupvpn", "tor", "torsf")
TESTS = ("web_connectivity", *IM_TESTS, "vanilla_tor", *TOR_TESTS, "ndt")
UNKNOWN_TEST = "never_heard_of"
COUNTRIES = ("IT", "DE", "BA", "ZZ", "XK", "US")
NETWORKS = (0, 1, 30722, 3269, 4294967295)
INPUTS = tuple(
    f"https://{domain}/{n}" for domain in ("www.example.org", "news.example", "é.example:81") for n in range(4)
)

K = TypeVar("K")


@dataclass(frozen=True)
class Measured:
    """What statistics look at in one row."""

    start: datetime
    cc: str
    asn: int
    test: str
    input: str
    anomaly: bool
    confirmed: bool
    failure: bool
    runtime: float | None

    @property
    def day(self) -> date:
        return self.start.date()

    @property
    def month(self) -> date:
        return self.day.replace(day=1)

    @property
    def domain(self) -> str:
        return self.input.split("/")[2] if self.input else ""

    @property
    def kind(self) -> str:
        if self.failure:
            return "failure"
        if self.confirmed:
            return "confirmed"
        return "anomaly" if self.anomaly else "ok"


def make(
    today: date,
    count: int = 6000,
    seed: int = 1,
    tests: Sequence[str] = TESTS,
    countries: Sequence[str] = COUNTRIES,
) -> list[Measured]:
    """Return rows of many years, most of them of the last weeks, with all edges of windows."""
    chance = random.Random(seed)
    six_months = today + relativedelta(months=-6)
    edges = [today - timedelta(days=n) for n in (-40, -1, 0, 1, 2, 3, 30, 31, 32, 33)]
    edges += [six_months + timedelta(days=n) for n in (-1, 0, 1)]
    edges += [today.replace(day=1) + relativedelta(months=-n) for n in (0, 1, 5, 6, 22, 23, 24, 25)]
    edges += [today.replace(day=1) + relativedelta(months=-n, days=-1) for n in (0, 5, 6, 23)]
    edges += [date(2012, 11, 30), date(2012, 12, 1), date(2099, 1, 1)]
    rows = []
    for number in range(count):
        ago = int(chance.choice((40, 200, 900)) * chance.random())
        day = chance.choice(edges) if number % 4 == 0 else today - timedelta(days=ago)
        second = chance.choice((0, 86399, chance.randrange(86400)))
        test = chance.choice(tests) if number % 50 else UNKNOWN_TEST
        rows.append(
            Measured(
                start=datetime(day.year, day.month, day.day) + timedelta(seconds=second),  # noqa: DTZ001 no zone
                cc=chance.choice(countries),
                asn=chance.choice(NETWORKS),
                test=test,
                input=chance.choice(INPUTS) if test == "web_connectivity" else "",
                anomaly=chance.random() < 0.4,
                confirmed=chance.random() < 0.1,
                failure=chance.random() < 0.1,
                runtime=None if chance.random() < 0.2 else round(chance.expovariate(0.1), 3),
            )
        )
    return rows


def write(dsn: str, rows: Iterable[Measured], first: int = 0) -> None:
    """Add rows to the database and count everything anew."""
    columns = ", ".join(field.name for field in fields(Measured))
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE sample (start timestamp, cc text, asn bigint, test text, input text, domain text,"
            " anomaly boolean, confirmed boolean, failure boolean, runtime double precision, number serial)"
        )
        with connection.cursor() as cursor, cursor.copy(f"COPY sample ({columns}, domain) FROM STDIN") as copy:
            for row in rows:
                copy.write_row((*astuple(row), row.domain))
        connection.execute(
            "INSERT INTO fastpath (measurement_uid, input, domain, probe_cc, probe_asn, test_name, test_name_other,"
            " measurement_start_time, anomaly, confirmed, msm_failure, test_runtime, scores)"
            " SELECT 'sample' || (number + %(first)s), input, domain, cc, asn,"
            " CASE WHEN test <> %(unknown)s THEN test::ootest END, CASE WHEN test = %(unknown)s THEN test END,"
            " start, anomaly, confirmed, failure, runtime, '{}' FROM sample",
            {"first": first, "unknown": UNKNOWN_TEST},
        )
        fill_counters(connection)


def grouped(rows: Iterable[Measured], key: Callable[[Measured], K]) -> dict[K, list[Measured]]:
    """Return rows by key, in the order of keys."""
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))


def kinds(rows: list[Measured]) -> dict[str, int]:
    """Return the counts that lists of websites show."""
    counts = {f"{kind}_count": sum(row.kind == kind for row in rows) for kind in ("anomaly", "confirmed", "failure")}
    return {**counts, "total_count": len(rows)}


def window(rows: Iterable[Measured], since: date, until: date) -> list[Measured]:
    """Return the rows of whole days, without the day `until`."""
    return [row for row in rows if since <= row.day < until]


class Asked:
    """Asks the application, and returns what the contract says that there is."""

    def __init__(self, app: Flask, dsn: str, today: date, rows: list[Measured]) -> None:
        self.client = app.test_client()
        self.app = app
        self.dsn = dsn
        self.today = today
        self.rows = rows

    def get(self, route: str, **query: Any) -> TestResponse:
        return self.client.get(f"/api/_/{route}", query_string=query)

    def json(self, route: str, *, cache: int | None = None, **query: Any) -> Any:
        response = self.get(route, **query)
        assert response.status_code == 200, response.text
        assert response.mimetype == "application/json"
        if cache is not None:
            assert response.headers["Cache-Control"] == f"max-age={cache}"
        return response.json

    def csv(self, route: str, **query: Any) -> str:
        response = self.get(route, format="cSv", **query)
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == "text/csv"
        return response.text

    def refused(self, route: str, **query: Any) -> str:
        response = self.get(route, **query)
        assert response.status_code == 400, response.text
        assert response.headers["Cache-Control"] == "no-cache"
        return str(response.json["error"])

    def last_31_days(self) -> list[Measured]:
        return window(self.rows, self.today - timedelta(days=31), self.today)


def database_day(dsn: str) -> date:
    """Return the day of today in the database."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
        assert row is not None
        return row[0]
