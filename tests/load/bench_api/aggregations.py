"""Questions of charts: no axis, one, two, over a month, a year and all time, and those that Explorer's pages ask."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from tests.load.bench_api.facts import Facts
from tests.load.bench_api.question import AGGREGATION, COUNTED, Question, path, sums, sums_of, text

TIME, CATEGORY = "measurement_start_day", "category_code"
_EPOCH = date(2012, 12, 1)

# Each measurement has one category: of its country's list, else of the global one, else of the first that has the URL.
_CATEGORIES = """INNER JOIN (SELECT url, argMin(category_code, concat(if(cc='ZZ','  ',cc), category_code)) AS general
 FROM citizenlab GROUP BY url) AS l ON f.input=l.url
 LEFT JOIN citizenlab AS o ON o.url=f.input AND o.cc=lower(f.probe_cc)"""
_COLUMN = {
    CATEGORY: "if(o.category_code='', l.general, o.category_code)",
    "blocking_type": "blocking_type",
    "hour": "toStartOfHour(measurement_start_time)",
    "day": "toDate(measurement_start_time)",
    "week": "toStartOfWeek(measurement_start_time)",
    "month": "toStartOfMonth(measurement_start_time)",
    "year": "toStartOfYear(measurement_start_time)",
}


def questions(facts: Facts) -> Iterator[Question]:
    """Yield them."""
    yield from _windows(facts)
    yield from _pages(facts)


def _windows(facts: Facts) -> Iterator[Question]:
    windows = (("month", 30, "day"), ("year", 365, "day"), ("all time", (facts.tomorrow - _EPOCH).days, "month"))
    for name, days, grain in windows:
        since = facts.ago(days)
        yield _ask(facts, f"{name}: no axis", (), since)
        for axis in (TIME, "probe_cc", "test_name", "probe_asn", "domain", "input", CATEGORY, "blocking_type"):
            yield _ask(facts, f"{name}: {axis}", (axis,), since, grain=grain)
        yield _ask(facts, f"{name}: time, probe_cc", (TIME, "probe_cc"), since, grain=grain)
        yield _ask(facts, f"{name}: time, test_name", (TIME, "test_name"), since, grain=grain)
        yield _ask(facts, f"{name}: probe_cc, test_name", ("probe_cc", "test_name"), since)
        if name == "month":
            continue  # the pages ask the rest of that
        one: dict[str, Any] = {"domain": [facts.domain]}
        yield _ask(facts, f"{name}: time of a domain", (TIME,), since, grain=grain, **one)
        yield _ask(facts, f"{name}: time, probe_cc of a domain", (TIME, "probe_cc"), since, grain=grain, **one)
        yield _ask(facts, f"{name}: time of an input", (TIME,), since, grain=grain, input=facts.input)
        yield _ask(facts, f"{name}: time of a network", (TIME,), since, grain=grain, probe_asn=[facts.asn])
        here: dict[str, Any] = {"probe_cc": [facts.country]}
        yield _ask(facts, f"{name}: time, category of a country", (TIME, CATEGORY), since, grain=grain, **here)
        here["category"] = facts.category
        yield _ask(facts, f"{name}: time, domain of a category", (TIME, "domain"), since, grain=grain, **here)
    yield _ask(facts, "week by hour: time of a country", (TIME,), facts.ago(7), grain="hour", probe_cc=[facts.country])
    yield _ask(facts, "month: time of a run link", (TIME,), facts.ago(30), grain="day", run_link=facts.run_link)


def _pages(facts: Facts) -> Iterator[Question]:
    """The requests that Explorer's pages make."""
    country, asn, month = facts.country, facts.asn, facts.ago(30)
    yield _ask(facts, "page country: year's calendar", (TIME,), facts.ago(364), probe_cc=[country])
    yield _ask(facts, "page country: categories", (CATEGORY,), month, probe_cc=[country], test=["web_connectivity"])
    yield _ask(
        facts,
        "page country: domains",
        (TIME, "domain"),
        month,
        grain="day",
        probe_cc=[country],
        test=["web_connectivity"],
    )
    messengers = ["whatsapp", "facebook_messenger", "telegram", "signal"]
    tools = ["vanilla_tor", "psiphon", "tor", "torsf", "riseupvpn"]
    yield _ask(
        facts, "page country: messengers", (TIME, "test_name"), month, grain="day", probe_cc=[country], test=messengers
    )
    yield _ask(
        facts, "page country: circumvention", (TIME, "test_name"), month, grain="day", probe_cc=[country], test=tools
    )
    yield _ask(facts, "page network: countries, no dates", ("probe_cc",), None, probe_asn=[asn])
    yield _ask(facts, "page network: 12 years by day", (TIME,), facts.ago(12 * 365), grain="day", probe_asn=[asn])
    yield _ask(
        facts, "page network: domains", (TIME, "domain"), month, grain="day", probe_asn=[asn], test=["web_connectivity"]
    )
    yield _ask(
        facts, "page network: messengers", (TIME, "test_name"), month, grain="day", probe_asn=[asn], test=messengers
    )
    yield _ask(
        facts,
        "page domain: countries",
        (TIME, "probe_cc"),
        month,
        grain="day",
        domain=[facts.domain],
        test=["web_connectivity"],
    )
    yield _ask(
        facts,
        "page circumvention: tor",
        (TIME, "probe_cc"),
        month,
        grain="day",
        test=["tor"],
        probe_cc=["CN", "IR", "RU"],
    )
    yield _ask(facts, "page media: a domain", (TIME, "probe_cc"), month, grain="day", test=["web_connectivity"],
               domain=[facts.domain], probe_cc=["CN", "IR", "RU"])  # fmt: skip
    yield _ask(
        facts,
        "page chart: domains by country",
        ("domain", "probe_cc"),
        month,
        test=["web_connectivity"],
        probe_cc=["CN", "IR", "RU"],
    )


def _ask(
    facts: Facts,
    name: str,
    axes: Sequence[str],
    since: date | None,
    *,
    grain: str | None = None,
    probe_cc: list[str] | None = None,
    probe_asn: list[int] | None = None,
    test: list[str] | None = None,
    domain: list[str] | None = None,
    input: str | None = None,  # noqa: A002 - the name of the parameter
    category: str | None = None,
    run_link: int | None = None,
) -> Question:
    days = None if since is None else (facts.tomorrow - since).days
    real_grain = grain or ("hour" if days is not None and days <= 7 else "day")
    where = ["1"]
    if since is not None:
        where.append(
            f"measurement_start_time >= '{since} 00:00:00' AND measurement_start_time < '{facts.tomorrow} 00:00:00'"
        )
    for column, values in (("probe_cc", probe_cc), ("probe_asn", probe_asn), ("test_name", test), ("domain", domain)):
        if values:
            where.append(
                f"{column} IN ({','.join(str(value) if isinstance(value, int) else text(value) for value in values)})"
            )
    if input is not None:
        where.append(f"input={text(input)}")
    if run_link is not None:
        where.append(f"ooni_run_link_id={run_link}")
    if category is not None:
        lists = ",".join(map(text, ("ZZ", *(country.lower() for country in probe_cc or ()))))
        where.append(f"input IN (SELECT url FROM citizenlab WHERE category_code={text(category)} AND cc IN ({lists}))")
    columns = [f"{_COLUMN.get(real_grain if axis == TIME else axis, axis)} AS axis{n}" for n, axis in enumerate(axes)]
    source = f"fastpath AS f {_CATEGORIES}" if CATEGORY in axes else "fastpath"
    sql = f"SELECT {', '.join([*columns, COUNTED])} FROM {source} WHERE {' AND '.join(where)}"
    if axes:
        names = ", ".join(f"axis{n}" for n in range(len(axes)))
        sql += f" GROUP BY {names} ORDER BY {names}"
    request = path(
        "/api/v1/aggregation",
        axis_x=axes[0] if axes else None,
        axis_y=axes[1] if len(axes) > 1 else None,
        since=since,
        until=facts.tomorrow if since else None,
        time_grain=grain if TIME in axes else None,
        probe_cc=",".join(probe_cc) if probe_cc else None,
        probe_asn=",".join(f"AS{number}" for number in probe_asn) if probe_asn else None,
        test_name=",".join(test) if test else None,
        domain=",".join(domain) if domain else None,
        input=input,
        category_code=category,
        ooni_run_link_id=run_link,
    )
    return Question(name, AGGREGATION, request, sql, _reply, sums)


def _reply(reply: Any) -> Sequence[Any]:
    result = reply["result"]
    return sums_of(result if isinstance(result, list) else [result])
