"""Aggregation against the truth: whatever rows there are and whatever is asked, the reply is what counting gives.

Rows are written by the fastpath's own store, which keeps the counters. The truth is counted here, row by row, and
shares nothing with the SQL under test.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest
from flask import Flask

from core.counters import TABLES
from fastpath.row import Row
from fastpath.store import Store

PATH = "/api/v1/aggregation"
LONG = "https://long.example/" + "x" * 300
INPUTS = {
    "": "",
    "https://global.example/": "global.example",
    "https://global.example/two": "global.example",
    "https://moved.example/": "moved.example",
    "https://local.example/": "local.example",
    'https://unlisted.example/ä\u2028😀\x7f"\\': "unlisted.example",
    LONG: "long.example",
    LONG + "y": "long.example",
}
LISTS = {
    ("https://global.example/", "ZZ"): "NEWS",
    ("https://global.example/two", "ZZ"): "POLR",
    ("https://global.example/two", "it"): "POLR",
    ("https://moved.example/", "ZZ"): "NEWS",
    ("https://moved.example/", "it"): "HUMR",
    ("https://moved.example/", "fr"): "POLR",
    ("https://local.example/", "it"): "POLR",
    ("https://local.example/", "fr"): "NEWS",
    (LONG, "de"): "GRP",
    (LONG, "ZZ"): "NEWS",
}
COUNTRIES = ("IT", "FR", "DE", "ZZ")
NETWORKS = (0, 30722, 4294967295)
TESTS = ("web_connectivity", "ndt", "torsf", "own_experiment")
RUN_LINKS = (None, None, 10001, 18446744073709551615)
BLOCKING = ("", "", "dns", "tcp_ip")
MOMENTS = [
    datetime.fromisoformat(text)
    for text in (
        "1970-01-01 00:00:00",
        "2023-12-30 12:00:00",
        "2023-12-31 23:59:59",
        "2024-01-01 00:00:00",
        "2024-01-01 00:00:01",
        "2024-01-07 11:59:59",
        "2024-01-31 12:00:01",
        "2024-02-01 00:00:00",
        "2024-02-29 23:59:59",
        "2024-03-01 06:30:00",
        "2024-03-03 18:45:10",
        "2024-12-30 05:00:00",
        "2025-06-15 17:00:00",
        "2106-02-07 06:28:15",
    )
]
COUNTS = ("anomaly_count", "confirmed_count", "failure_count", "measurement_count", "ok_count")
ROWS = 60
QUESTIONS = 250


def make_row(random: Random, number: int) -> Row:
    started = random.choice(MOMENTS) + timedelta(hours=random.choice((0, 0, 1, 13)))
    input_ = random.choice(list(INPUTS))
    texts: dict[str, Any] = dict.fromkeys(
        (
            *("platform", "architecture", "engine_name", "engine_version", "software_name", "software_version"),
            *("test_version", "test_helper_address", "test_helper_type"),
        ),
        "",
    )
    return Row(
        measurement_uid=f"{started:%Y%m%d%H%M%S}.{number:06d}_IT_x_{number:016x}",
        report_id=f"{started:%Y%m%dT%H%M%SZ}_x_IT_1_n1_{number:016d}",
        input=input_,
        domain=INPUTS[input_],
        probe_cc=random.choice(COUNTRIES),
        probe_asn=random.choice(NETWORKS),
        test_name=random.choice(TESTS),
        test_start_time=started,
        measurement_start_time=started,
        scores="{}",
        anomaly=random.random() < 0.4,
        confirmed=random.random() < 0.3,
        msm_failure=random.random() < 0.2,
        blocking_type=random.choice(BLOCKING),
        test_runtime=1.0,
        ooni_run_link_id=random.choice(RUN_LINKS),
        is_verified="u",
        **texts,
    )


def make_question(random: Random) -> dict[str, str]:
    """The parameters of a question that has an answer."""
    asked: dict[str, str] = {}
    moments = sorted(random.sample([*MOMENTS, *(moment.replace(hour=0, minute=0, second=0) for moment in MOMENTS)], 2))
    bounds: list[datetime | None] = [moment if random.random() < 0.85 else None for moment in moments]
    for name, moment in zip(("since", "until"), bounds, strict=True):
        if moment is not None:
            whole_day = (moment.hour, moment.minute, moment.second) == (0, 0, 0) and random.random() < 0.5
            asked[name] = moment.date().isoformat() if whole_day else moment.isoformat()
    axes = ["blocking_type", "category_code", "domain", "input", "probe_asn", "probe_cc", "test_name"]
    since, until = bounds
    if since is not None and until is not None and since < until:
        asked["time_grain"] = random.choice(allowed_grains(until - since))
        axes += ["measurement_start_day"] * 7
    names = random.sample(("axis_x", "axis_y"), random.choice((0, 1, 1, 2, 2, 2)))
    wanted: list[str] = []
    while len(wanted) < len(names):
        wanted.append(random.choice([axis for axis in axes if axis not in wanted]))
    asked |= dict(zip(names, wanted, strict=True))
    lists: dict[str, list[str]] = {
        "probe_cc": list(COUNTRIES),
        "probe_asn": [f"AS{number}" for number in NETWORKS],
        "test_name": [*TESTS, "never_seen"],
        "domain": sorted(set(INPUTS.values()) - {""}),
        "ooni_run_link_id": ["10001", "18446744073709551615", "5"],
    }
    for name, values in lists.items():
        if random.random() < (0.04 if name == "ooni_run_link_id" else 0.15):
            asked[name] = ",".join(random.sample(values, random.choice((1, 2, 3))))
    if random.random() < 0.1:
        asked["input"] = random.choice([url for url in INPUTS if url.isascii() and url.isprintable() and url])
    if random.random() < 0.15:
        asked["category_code"] = random.choice(("NEWS", "POLR", "HUMR", "GRP", "GAME"))
    return asked


def allowed_grains(window: timedelta) -> list[str]:
    if window <= timedelta(days=7):
        return ["hour", "day", "auto"]
    if window <= timedelta(days=30):
        return ["day", "week", "auto"]
    return ["day", "week", "month", "auto"] + (["year"] if window > timedelta(days=365) else [])


def truth(rows: list[Row], asked: dict[str, str]) -> Any:
    """The result of a question, counted by hand."""
    axes = [asked[name] for name in ("axis_x", "axis_y") if name in asked]
    since = datetime.fromisoformat(asked.get("since", "0001-01-01"))
    until = datetime.fromisoformat(asked.get("until", "9999-01-01"))
    grain = asked.get("time_grain", "auto")
    if grain == "auto":
        grain = "hour" if until - since <= timedelta(days=7) else "day"
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for row in rows:
        if since <= row.measurement_start_time < until and passes(row, asked):
            values = [value_of(row, axis, grain, asked) for axis in axes]
            if None not in values:
                counts = found.setdefault(tuple(values), Counter())
                counts[kind(row)] += 1
                counts["measurement_count"] += 1
    results = [
        {**dict(zip(axes, values, strict=True)), **{name: found[values][name] for name in COUNTS}}
        for values in sorted(found)
    ]
    if axes:
        return results
    return results[0] if results else dict.fromkeys(COUNTS, 0)


def kind(row: Row) -> str:
    if row.msm_failure:
        return "failure_count"
    if row.confirmed:
        return "confirmed_count"
    return "anomaly_count" if row.anomaly else "ok_count"


def passes(row: Row, asked: dict[str, str]) -> bool:
    countries = asked["probe_cc"].split(",") if "probe_cc" in asked else []
    if "category_code" in asked:
        lists = ["ZZ", *(country.lower() for country in countries)]
        if asked["category_code"] not in [LISTS.get((row.input, cc)) for cc in lists]:
            return False
    texts = {
        "probe_cc": row.probe_cc,
        "probe_asn": f"AS{row.probe_asn}",
        "test_name": row.test_name,
        "domain": row.domain,
        "ooni_run_link_id": str(row.ooni_run_link_id),
    }
    return all(texts[name] in asked[name].split(",") for name in texts if name in asked) and (
        "input" not in asked or asked["input"] == row.input
    )


def value_of(row: Row, axis: str, grain: str, asked: dict[str, str]) -> Any:
    if axis == "measurement_start_day":
        return bucket(row.measurement_start_time, grain)
    if axis == "category_code":
        return asked.get("category_code") or category(row.input, row.probe_cc)
    return getattr(row, axis)


def category(input_: str, country: str) -> str | None:
    lists = {cc: code for (url, cc), code in LISTS.items() if url == input_}
    others = [lists[cc] for cc in sorted(cc for cc in lists if cc != "ZZ")]
    return lists.get(country.lower()) or lists.get("ZZ") or (others[0] if others else None)


def bucket(moment: datetime, grain: str) -> str:
    day = moment.date()
    starts: dict[str, date] = {
        "day": day,
        "week": day - timedelta(days=(day.weekday() + 1) % 7),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }
    return f"{day}T{moment.hour:02d}:00:00Z" if grain == "hour" else starts[grain].isoformat()


@pytest.fixture(scope="module")
def lists(module_dsn: str) -> str:
    with psycopg.connect(module_dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)",
            [(INPUTS[url], url, cc, code) for (url, cc), code in LISTS.items()],
        )
    return module_dsn


@pytest.fixture(scope="module")
def store(lists: str) -> Iterator[Store]:
    opened = Store(lists)
    yield opened
    opened.close()


def empty(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in ("fastpath", "fastpath_misdated", *(table.name for table in TABLES)):
            connection.execute(f"DELETE FROM {table}".encode())


@pytest.mark.parametrize("seed", range(5))
def test_replies_are_what_counting_gives(module_app: Flask, store: Store, module_dsn: str, seed: int) -> None:
    random = Random(seed)
    empty(module_dsn)
    rows = [make_row(random, number) for number in range(ROWS)]
    store.insert(rows)
    # A rerun gives some of the measurements other keys, and leaves counters of nothing behind.
    replaced = [
        msgspec.structs.replace(
            make_row(random, number), measurement_uid=rows[number].measurement_uid, report_id=rows[number].report_id
        )
        for number in range(0, ROWS, 3)
    ]
    store.replace(replaced)
    gone = {row.measurement_uid for row in replaced}
    kept = [row for row in rows if row.measurement_uid not in gone] + replaced
    client = module_app.test_client()
    shapes: Counter[str] = Counter()
    for _ in range(QUESTIONS):
        question = make_question(random)
        expected = truth(kept, question)
        response = client.get(PATH, query_string=question)
        assert response.status_code == 200, (question, response.text)
        reply = json.loads(response.text)
        assert reply.get("result") == expected, (question, reply)
        assert reply["dimension_count"] == len({"axis_x", "axis_y"} & set(question))
        assert response.text == json.dumps(reply, sort_keys=True, separators=(",", ":")) + "\n"
        table = client.get(PATH, query_string=question | {"format": "CSV"})
        assert list(csv.DictReader(io.StringIO(table.text, newline=""))) == [
            {name: str(value) for name, value in sorted(result.items())}
            for result in (expected if isinstance(expected, list) else [expected])
        ]
        shapes.update([*question.values()] if expected else ["nothing"])
    # The questions are of use: many have an answer, and those about time, in all grains.
    assert shapes["nothing"] < QUESTIONS / 2
    assert shapes["measurement_start_day"] > 20
    assert all(shapes[axis] > 5 for axis in ("category_code", "blocking_type", "input", "probe_asn"))
