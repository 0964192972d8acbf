"""Aggregation while measurements come in: what is taken off counters and what is counted are of one moment."""

import threading
from datetime import datetime, timedelta

import pytest
from api_sample import ANOMALY, Sample
from flask import Flask

from fastpath.store import Store

PATH = "/api/v1/aggregation"
BATCHES = 80
DAY = datetime(2024, 3, 5)  # noqa: DTZ001 UTC without a zone, as the column


@pytest.fixture
def writer(module_dsn: str) -> threading.Thread:
    """Writes measurements of the early morning, all with a blocking type, in many transactions."""

    def write() -> None:
        store = Store(module_dsn)
        for batch in range(BATCHES):
            numbers = range(batch * 10, batch * 10 + 10)
            samples = [
                Sample(DAY + timedelta(minutes=number % 360), number, scores=ANOMALY, anomaly=True)
                for number in numbers
            ]
            store.insert([sample.row() for sample in samples])
        store.close()

    return threading.Thread(target=write)


def test_every_reply_is_of_one_moment(module_app: Flask, writer: threading.Thread) -> None:
    client = module_app.test_client()
    asked = 0
    totals = []
    writer.start()
    while writer.is_alive() or asked == 0:
        # The counters of the day without its morning, in which everything started.
        after = client.get(f"{PATH}?axis_x=probe_cc&since=2024-03-05T06:00:00&until=2024-03-09")
        assert after.json["result"] == []
        # All measurements without those that have a blocking type; none is left.
        types = client.get(f"{PATH}?axis_x=blocking_type&since=2024-03-01&until=2024-04-02").json["result"]
        assert [each["blocking_type"] for each in types] in ([], ["dns"])
        total = client.get(PATH).json["result"]
        assert total["anomaly_count"] == total["measurement_count"]
        assert total["measurement_count"] % 10 == 0
        totals.append(total["measurement_count"])
        asked += 1
    writer.join()
    assert totals == sorted(totals)
    assert len(set(totals)) > 2, "nothing was written meanwhile"
    assert client.get(PATH).json["result"]["measurement_count"] == BATCHES * 10
