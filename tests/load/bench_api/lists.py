"""Questions about single measurements: the list with each filter and each order, and one measurement."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from tests.load.bench_api.facts import Facts
from tests.load.bench_api.question import LIST, Digest, Question, path, text

_COLUMNS = (
    "measurement_start_time, measurement_uid, report_id, input, probe_cc, probe_asn, test_name, anomaly, confirmed,"
    " msm_failure, scores"
)
_NAMES = _COLUMNS.split(", ")
_LIMIT = 100


def questions(facts: Facts) -> Iterator[Question]:
    """Yield them; windows end tomorrow, as the API's own do."""
    month = _window(facts.ago(30), facts)
    country, domain, url = facts.country, facts.domain, facts.input
    filters: list[tuple[str, dict[str, Any], str]] = [
        ("no filter", {}, "1"),
        ("probe_cc", {"probe_cc": country}, f"probe_cc={text(country)}"),
        ("probe_cc, small", {"probe_cc": facts.small_country}, f"probe_cc={text(facts.small_country)}"),
        ("probe_asn", {"probe_asn": f"AS{facts.asn}"}, f"probe_asn={facts.asn}"),
        ("test_name", {"test_name": "web_connectivity"}, "test_name='web_connectivity'"),
        ("test_name, rare", {"test_name": "torsf"}, "test_name='torsf'"),
        ("test_name, unknown to the type", {"test_name": "my_dnsprobe"}, "test_name='my_dnsprobe'"),
        ("domain", {"domain": domain}, f"domain={text(domain)}"),
        ("input", {"input": url}, f"input={text(url)}"),
        ("domain that nobody measured", {"domain": "nobody.example"}, "domain='nobody.example'"),
        ("category_code", {"category_code": facts.category}, _category(facts.category)),
        ("anomaly=true", {"anomaly": "true"}, "anomaly='t'"),
        ("confirmed=true", {"confirmed": "true"}, "confirmed='t'"),
        ("failure=true", {"failure": "true"}, "msm_failure='t'"),
        ("failure=false", {"failure": "false"}, "msm_failure='f'"),
        ("software_version", {"software_version": facts.software_version},
         f"software_version={text(facts.software_version)}"),
        ("engine_version", {"engine_version": facts.engine_version}, f"engine_version={text(facts.engine_version)}"),
        ("test_version", {"test_version": facts.test_version}, f"test_version={text(facts.test_version)}"),
        ("ooni_run_link_id", {"ooni_run_link_id": facts.run_link}, f"ooni_run_link_id={facts.run_link}"),
        ("probe_cc, test_name", {"probe_cc": country, "test_name": "telegram"},
         f"probe_cc={text(country)} AND test_name='telegram'"),
        ("probe_cc, anomaly", {"probe_cc": country, "anomaly": "true"}, f"probe_cc={text(country)} AND anomaly='t'"),
        ("probe_cc, domain", {"probe_cc": country, "domain": domain},
         f"probe_cc={text(country)} AND domain={text(domain)}"),
        ("probe_cc, category_code", {"probe_cc": country, "category_code": facts.category},
         f"probe_cc={text(country)} AND {_category(facts.category)}"),
        ("probe_asn, confirmed", {"probe_asn": facts.asn, "confirmed": "true"},
         f"probe_asn={facts.asn} AND confirmed='t'"),
        ("domain, confirmed", {"domain": domain, "confirmed": "true"}, f"domain={text(domain)} AND confirmed='t'"),
    ]  # fmt: skip
    for name, parameters, where in filters:
        yield _list(f"list: {name}", f"{where} AND {month}", **parameters)
    year = _window(facts.ago(365), facts)
    since: dict[str, Any] = {"since": facts.ago(365), "until": facts.tomorrow}
    yield _list("list: a year, probe_cc", f"probe_cc={text(country)} AND {year}", probe_cc=country, **since)
    yield _list("list: a year, domain", f"domain={text(domain)} AND {year}", domain=domain, **since)
    yield _list("list: a year, probe_cc, confirmed", f"probe_cc={text(country)} AND confirmed='t' AND {year}",
                probe_cc=country, confirmed="true", **since)  # fmt: skip
    everything: dict[str, Any] = {"since": "2012-12-01", "until": facts.tomorrow}
    always = _window(date(2012, 12, 1), facts)
    yield _list("list: all time, no filter", always, **everything)
    yield _list("list: all time, oldest first", always, ascending=True, order="asc", **everything)
    yield _list("list: all time, input, confirmed", f"input={text(url)} AND confirmed='t' AND {always}",
                input=url, confirmed="true", **everything)  # fmt: skip
    yield _list("list: all time, rare test in a small country",
                f"probe_cc={text(facts.small_country)} AND test_name='torsf' AND {always}",
                probe_cc=facts.small_country, test_name="torsf", **everything)  # fmt: skip
    for order in ("input", "probe_cc", "probe_asn", "test_name"):
        yield _list(f"list: by {order}", month, order=order, order_by=order)
    yield _list("list: offset 1000", month, offset=1000)
    yield Question(
        "list: of a report", LIST, path("/api/v1/measurements", report_id=facts.report_id),
        f"SELECT {_COLUMNS} FROM fastpath WHERE report_id={text(facts.report_id)} AND probe_cc<>'ZZ' AND probe_asn<>0"
        f" ORDER BY measurement_start_time DESC LIMIT {_LIMIT}", _listed, _rows,
    )  # fmt: skip
    yield Question(
        "meta: by uid", LIST, path("/api/v1/measurement_meta", measurement_uid=facts.uid),
        f"SELECT {_COLUMNS} FROM fastpath WHERE measurement_uid={text(facts.uid)} LIMIT 1",
        lambda reply: [reply["measurement_uid"]], lambda rows: [rows[0][1]],
    )  # fmt: skip
    yield Question(
        "meta: by report and input", LIST,
        path("/api/v1/measurement_meta", report_id=facts.report_id, input=facts.report_input),
        f"SELECT {_COLUMNS} FROM fastpath WHERE report_id={text(facts.report_id)} "
        f"AND input={text(facts.report_input)} LIMIT 1",
        lambda reply: [reply["report_id"], reply["input"]], lambda rows: [rows[0][2], rows[0][3]],
    )  # fmt: skip
    yield Question(
        "meta: full, by uid", LIST, path("/api/v1/measurement_meta", measurement_uid=facts.uid, full="true"),
        None, lambda reply: [reply["measurement_uid"]],
    )  # fmt: skip


def _window(since: date, facts: Facts) -> str:
    """The list leaves out its first moment and takes in its last."""
    return f"measurement_start_time > '{since} 00:00:00' AND measurement_start_time <= '{facts.tomorrow} 00:00:00'"


def _category(category: str) -> str:
    """Unlike charts, the list takes the URLs of all lists."""
    return f"input IN (SELECT url FROM citizenlab WHERE category_code={text(category)})"


def _list(
    name: str, where: str, *, ascending: bool = False, order: str = "", offset: int | None = None, **parameters: Any
) -> Question:
    direction = "ASC" if ascending else "DESC"
    by = f"measurement_start_time {direction}"
    if order and order not in ("asc", "desc"):
        by = f"{order} DESC"
    elif order:
        parameters["order"] = order
    where += " AND probe_cc<>'ZZ' AND probe_asn<>0"
    sql = f"SELECT {_COLUMNS} FROM fastpath WHERE {where} ORDER BY {by} LIMIT {_LIMIT}"
    if offset:
        parameters["offset"] = offset
        sql += f" OFFSET {offset}"
    request = path("/api/v1/measurements", limit=_LIMIT, **parameters)
    if "order_by" not in parameters:
        return Question(name, LIST, request, sql, _listed, _rows)
    # Among rows with the same value any order will do.
    column = _NAMES.index(order)
    return Question(
        name, LIST, request, sql,
        lambda reply: [str(result[order] or "").removeprefix("AS") for result in reply["results"]],
        lambda rows: [str(row[column]) for row in rows],
    )  # fmt: skip


def _listed(reply: Any) -> Digest:
    times = sorted(result["measurement_start_time"].replace("T", " ").rstrip("Z") for result in reply["results"])
    return [len(times), *times[:1], *times[-1:]]


def _rows(rows: list[list[Any]]) -> Digest:
    times = sorted(row[0] for row in rows)
    return [len(times), *times[:1], *times[-1:]]
