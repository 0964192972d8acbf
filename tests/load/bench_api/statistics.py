"""Questions of the statistics: every route that counts measurements, and the small ones beside them."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

from tests.load.bench_api.facts import Facts
from tests.load.bench_api.question import STATISTIC, Digest, Question, path, text

from api.country_names import COUNTRY_NAMES

_TOOLS = "('psiphon','riseupvpn','stunreachability','tor','torsf')"
_MESSENGERS = "('facebook_messenger','signal','telegram','whatsapp')"
_WEB = "test_name='web_connectivity'"
_GROUPED = (  # the tests that belong to a group
    "('bridge_reachability','meek_fronted_requests_test','psiphon','riseupvpn','tcp_connect','tor','torsf','vanilla_tor',"
    "'dnscheck','stunreachability','urlgetter','facebook_messenger','signal','telegram','whatsapp','dns_consistency',"
    "'http_host','http_requests','multi_protocol_traceroute','http_header_field_manipulation','http_invalid_request_line',"
    "'dash','ndt','web_connectivity')"
)


def questions(facts: Facts) -> Iterator[Question]:
    """Yield them."""
    yield from _of_everything(facts)
    yield from _of_a_country(facts)
    yield from _of_tools(facts)


def _of_everything(facts: Facts) -> Iterator[Question]:
    first = _months_before(facts.today, 23)
    months = (
        f"measurement_start_time >= '{first} 00:00:00' AND measurement_start_time < '{_next(facts.today)} 00:00:00'"
    )
    by_month = "SELECT toStartOfMonth(measurement_start_time) AS m, {} FROM fastpath WHERE {} GROUP BY m ORDER BY m"
    total = _last_column

    def values(reply: Any) -> Digest:
        return [sum(item["value"] for item in reply)]

    yield _question("asn_by_month", {}, by_month.format("uniqExact(probe_asn)", months), values, total)
    yield _question("countries_by_month", {}, by_month.format("uniqExact(probe_cc)", months), values, total)
    yield _question(
        "global_overview", {}, "SELECT uniqExact(probe_asn), uniqExact(probe_cc), count() FROM fastpath",
        lambda reply: [reply["network_count"], reply["country_count"], reply["measurement_count"]],
        lambda rows: [int(value) for value in rows[0]],
    )  # fmt: skip
    three = "uniqExact(probe_asn), uniqExact(probe_cc), count()"
    yield _question(
        "global_overview_by_month", {}, by_month.format(three, months),
        lambda reply: [sum(item["value"] for item in reply[name])
                       for name in ("networks_by_month", "countries_by_month", "measurements_by_month")],
        lambda rows: [sum(int(row[column]) for row in rows) for column in (1, 2, 3)],
    )  # fmt: skip
    named = ",".join(map(text, COUNTRY_NAMES))
    yield _question(
        "countries", {},
        f"SELECT probe_cc, count() FROM fastpath WHERE probe_cc IN ({named}) GROUP BY probe_cc ORDER BY probe_cc",
        lambda reply: [sum(item["count"] for item in reply["countries"])], total,
    )  # fmt: skip
    names = "(SELECT asn, argMax(org_name, changed) AS org_name FROM asnmeta GROUP BY asn)"
    yield _question(
        "networks", {},
        f"SELECT probe_asn, any(n.org_name), count() FROM fastpath LEFT JOIN {names} AS n"
        " ON n.asn=probe_asn GROUP BY probe_asn",
        lambda reply: [len(reply["results"]), sum(item["cnt"] for item in reply["results"])], _rows_and_total,
    )  # fmt: skip
    yield _question(
        "domains", {},
        "SELECT l.domain, l.category, m.n FROM (SELECT domain,"
        " argMin(category_code, (cc<>'ZZ', length(url), url, cc)) AS category FROM citizenlab GROUP BY domain) AS l"
        f" LEFT JOIN (SELECT domain, count() AS n FROM fastpath WHERE {_WEB} GROUP BY domain) AS m"
        " ON m.domain=l.domain ORDER BY l.domain",
        lambda reply: [len(reply["results"]), sum(item["measurement_count"] for item in reply["results"])],
        _rows_and_total,
    )  # fmt: skip
    yield _question(
        "asnmeta", {"asn": facts.asn}, f"SELECT argMax(org_name, changed) FROM asnmeta WHERE asn={facts.asn}"
    )
    bare = facts.domain.removeprefix("www.")
    yield _question(
        "domain_metadata", {"domain": facts.domain},
        "SELECT category_code, domain FROM citizenlab"
        f" WHERE domain IN ({text(bare)},{text('www.' + bare)}) ORDER BY cc<>'ZZ', length(url), url, cc LIMIT 1",
        lambda reply: [reply["category_code"], reply["canonical_domain"]], lambda rows: rows[0],
    )  # fmt: skip
    yield _question("test_names", {}, None)
    yield _question("check_report_id", {"report_id": facts.report_id}, None)


def _of_a_country(facts: Facts) -> Iterator[Question]:
    cc, asn = facts.country, facts.asn
    here = f"probe_cc={text(cc)}"
    lately = _between(facts.today - timedelta(days=31), facts.today)
    yield _question(
        "country_overview", {"probe_cc": cc},
        f"SELECT count(), uniqExact(probe_asn), toDate(min(measurement_start_time)) FROM fastpath WHERE {here}"
        " AND measurement_start_time >= '2012-12-01 00:00:00'",
        lambda reply: [reply["measurement_count"], reply["network_count"], reply["first_bucket_date"]],
        lambda rows: [int(rows[0][0]), int(rows[0][1]), rows[0][2]],
    )  # fmt: skip
    days = _between(facts.today - timedelta(days=31), facts.today - timedelta(days=1))
    yield _question(
        "test_coverage", {"probe_cc": cc},
        f"SELECT toDate(measurement_start_time) AS d, countIf(test_name IN {_GROUPED}), uniqExact(probe_asn)"
        f" FROM fastpath WHERE {here} AND {days} GROUP BY d",
        lambda reply: [sum(item["count"] for item in reply["test_coverage"]),
                       sum(item["count"] for item in reply["network_coverage"])],
        lambda rows: [sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)],
    )  # fmt: skip
    yield _question(
        "website_networks", {"probe_cc": cc},
        f"SELECT probe_asn, count() AS n FROM fastpath WHERE {here} AND {_WEB} AND {lately}"
        " GROUP BY probe_asn ORDER BY n DESC",
        lambda reply: [len(reply["results"]), sum(item["count"] for item in reply["results"])], _rows_and_total,
    )  # fmt: skip
    yield _question(
        "website_stats", {"probe_cc": cc, "probe_asn": asn, "input": facts.input},
        f"SELECT toDate(measurement_start_time) AS d, count() FROM fastpath WHERE {here} AND probe_asn={asn} AND {_WEB}"
        f" AND input={text(facts.input)} AND {lately} GROUP BY d ORDER BY d",
        lambda reply: [len(reply["results"]), sum(item["total_count"] for item in reply["results"])], _rows_and_total,
    )  # fmt: skip
    yield _question(
        "website_urls", {"probe_cc": cc, "probe_asn": asn},
        f"SELECT input, countIf(confirmed='t' AND msm_failure='f') AS c, count() AS n, count() OVER () FROM fastpath"
        f" WHERE {here} AND probe_asn={asn} AND {_WEB} AND {lately} GROUP BY input"
        " ORDER BY c DESC, n DESC, input LIMIT 10",
        lambda reply: [reply["metadata"]["total_count"], len(reply["results"])],
        lambda rows: [int(rows[0][3]) if rows else 0, len(rows)],
    )  # fmt: skip
    yield _question(
        "network_stats", {"probe_cc": cc},
        f"SELECT probe_asn, count() AS n, count() OVER () FROM fastpath WHERE {here} AND {lately} GROUP BY probe_asn"
        " ORDER BY n DESC, probe_asn LIMIT 10",
        lambda reply: [reply["metadata"]["total_count"], sum(item["measurement_count"] for item in reply["results"])],
        lambda rows: [int(rows[0][2]) if rows else 0, sum(int(row[1]) for row in rows)],
    )  # fmt: skip
    yield _question(
        "im_networks", {"probe_cc": cc},
        f"SELECT test_name, probe_asn, max(measurement_start_time), count() FROM fastpath WHERE {here}"
        f" AND test_name IN {_MESSENGERS} AND {lately} GROUP BY test_name, probe_asn",
        lambda reply: [sum(item["total_count"] for test in reply.values()
                           for kind in ("anomaly_networks", "ok_networks") for item in test[kind])],
        _last_column,
    )  # fmt: skip
    until_now = _between(facts.today - timedelta(days=31), facts.tomorrow)
    yield _question(
        "im_stats", {"probe_cc": cc, "probe_asn": asn, "test_name": "telegram"},
        f"SELECT toDate(measurement_start_time) AS d, count() FROM fastpath WHERE {here} AND probe_asn={asn}"
        f" AND test_name='telegram' AND {until_now} GROUP BY d",
        lambda reply: [sum(item["total_count"] for item in reply["results"])], _last_column,
    )  # fmt: skip
    half_a_year = _between(_months_before_day(facts.today, 6), facts.tomorrow)
    yield _question(
        "vanilla_tor_stats", {"probe_cc": cc},
        f"SELECT probe_asn, max(measurement_start_time), count() FROM fastpath WHERE {here} AND test_name='vanilla_tor'"
        f" AND {half_a_year} GROUP BY probe_asn",
        lambda reply: [len(reply["networks"]), sum(item["total_count"] for item in reply["networks"])], _rows_and_total,
    )  # fmt: skip


def _of_tools(facts: Facts) -> Iterator[Question]:
    days = _between(_months_before_day(facts.today, 6), facts.today - timedelta(days=1))
    yield _question(
        "circumvention_stats_by_country", {},
        f"SELECT probe_cc, count() FROM fastpath WHERE test_name IN {_TOOLS} AND {days}"
        " GROUP BY probe_cc ORDER BY probe_cc",
        lambda reply: [len(reply["results"]), sum(item["cnt"] for item in reply["results"])], _rows_and_total,
    )  # fmt: skip
    yield _question(
        "circumvention_runtime_stats", {},
        "SELECT test_name, probe_cc, toDate(measurement_start_time) AS d,"
        " quantilesExactInclusive(0.5, 0.9)(test_runtime), count()"
        f" FROM fastpath WHERE test_name IN {_TOOLS} AND {days} GROUP BY test_name, probe_cc, d",
        lambda reply: [sum(item["v"][2] for item in reply["results"] if item["v"])], _last_column,
    )  # fmt: skip
    month = _between(facts.ago(30), facts.tomorrow)
    for name, parameters, where in (
        ("torsf_stats: a month", {"since": facts.ago(30), "until": facts.tomorrow}, month),
        ("torsf_stats: all time", {}, "1"),
    ):
        yield Question(
            name, STATISTIC, path("/api/v1/torsf_stats", **parameters),
            "SELECT toDate(measurement_start_time) AS d, probe_cc, count() FROM fastpath"
            f" WHERE test_name='torsf' AND {where} GROUP BY d, probe_cc ORDER BY d, probe_cc",
            lambda reply: [len(reply["result"]), sum(item["measurement_count"] for item in reply["result"])],
            _rows_and_total,
        )  # fmt: skip


def _question(
    name: str,
    parameters: dict[str, object],
    sql: str | None,
    of_reply: Callable[[Any], Digest] | None = None,
    of_rows: Callable[[list[list[Any]]], Digest] | None = None,
) -> Question:
    return Question(name, STATISTIC, path(f"/api/_/{name}", **parameters), sql, of_reply, of_rows)


def _last_column(rows: list[list[Any]]) -> Digest:
    return [sum(int(row[-1]) for row in rows)]


def _rows_and_total(rows: list[list[Any]]) -> Digest:
    return [len(rows), sum(int(row[-1]) for row in rows)]


def _between(since: date, until: date) -> str:
    return f"measurement_start_time >= '{since} 00:00:00' AND measurement_start_time < '{until} 00:00:00'"


def _next(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _months_before(day: date, months: int) -> date:
    """The first day of the month `months` before that of `day`."""
    number = day.year * 12 + day.month - 1 - months
    return date(number // 12, number % 12 + 1, 1)


def _months_before_day(day: date, months: int) -> date:
    """The day `months` before, or the last of that month if it has no such day."""
    first = _months_before(day, months)
    return min(first + timedelta(days=day.day - 1), _next(first) - timedelta(days=1))
