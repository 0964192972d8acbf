"""What the fastpath writes decides what probes are asked next, without a job in between."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg

from api.url_queries import UrlQueries
from api.url_selection import UrlSelection
from core.db import open_pool
from core.testlists import SAMPLE, read_lists
from fastpath.row import Row, fallback_row
from fastpath.store import Store

NETWORK = 30722


def row(number: int, url: str, **changes: object) -> Row:
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    uid = f"{now:%Y%m%d%H%M%S}.{number:06d}_IT_webconnectivity_{number:016x}"
    report_id = f"{now:%Y%m%dT%H%M%SZ}_webconnectivity_IT_{NETWORK}_n1_0000000000000000"
    values = {
        "input": url,
        "probe_cc": "IT",
        "probe_asn": NETWORK,
        "test_name": "web_connectivity",
        "measurement_start_time": now,
        **changes,
    }
    return msgspec.structs.replace(fallback_row(uid, None, "pipeline_test", report_id), **values)


def test_a_measured_url_moves_back_in_its_own_network(dsn: str, tmp_path: Path) -> None:
    with psycopg.connect(dsn) as connection:
        connection.cursor().executemany("INSERT INTO citizenlab VALUES (%s, %s, %s, %s)", read_lists(SAMPLE).entries)
    pool = open_pool(dsn)
    store = Store(dsn)
    selection = UrlSelection(UrlQueries(pool), tmp_path)
    try:
        selection.refresh()
        first, *others = [url.url for url in selection.listing("IT", (), 9999)]
        store.insert(
            [
                row(1, first),
                row(2, first),
                row(3, others[0], probe_cc="DE"),
                row(4, others[1], test_name="http_requests"),
                row(5, others[2], measurement_start_time=datetime.now(UTC).replace(tzinfo=None) - timedelta(days=15)),
                row(6, "https://not-listed.example/"),
            ]
        )
        later = UrlSelection(UrlQueries(pool), tmp_path)
        later.refresh()
        counts = {url.url: count for url, count, _, _ in later.network("IT", NETWORK).explained((), 9999)}
        assert {url: count for url, count in counts.items() if count} == {first: 2}
        assert later.select("IT", NETWORK, (), 1)[0].url == others[0]
        assert later.select("IT", NETWORK + 1, (), 1)[0].url == first
        later.close()
    finally:
        selection.close()
        store.close()
        pool.close()
