"""What the web interface reads in charts and lists: a client that asks as its pages do, and looks at every reply."""

import re
from datetime import date, timedelta
from typing import Any

from api_sample import TODAY, Sample, samples

ORIGIN = "https://explorer.example.org"
COUNTS = ("anomaly_count", "confirmed_count", "failure_count", "ok_count", "measurement_count")
MONTH = {"since": str((TODAY - timedelta(days=30)).date()), "until": str((TODAY + timedelta(days=1)).date())}
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
UID = re.compile(r"\d{14}\.\d{6}_[A-Z]{2}_[a-z]+_[0-9a-f]{16}")


class Explorer:
    """Asks as the browser does, from the origin of the interface."""

    def __init__(self, api: Any) -> None:
        """Take the server of the tests."""
        self.api = api

    def get(self, address: str, **params: object) -> Any:
        """Return the JSON of a path, or of a whole address as it stands in a reply."""
        url = address if "://" in address else self.api.url + address
        response = self.api.http.get(url, params=params or None, headers={"Origin": ORIGIN})
        assert response.status_code == 200, response.text
        assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}
        assert response.headers["content-type"] == "application/json"
        return response.json()

    def counts(self, *axes: str, **params: object) -> list[dict[str, Any]]:
        """Return the rows of a chart, after a look at what all charts read."""
        params |= dict(zip(("axis_x", "axis_y"), axes, strict=False))
        reply = self.get("/api/v1/aggregation", **params)
        assert "error" not in reply, reply
        assert reply["dimension_count"] == len(axes)
        result: list[dict[str, Any]] = reply["result"]
        assert isinstance(result, list)
        for row in result:
            assert set(row) == {*COUNTS, *axes}
            assert all(type(row[name]) is int and row[name] >= 0 for name in COUNTS)
            assert sum(row[name] for name in COUNTS[:4]) == row["measurement_count"]
            for axis in axes:
                check_axis(axis, row[axis])
        return result


def check_axis(axis: str, value: Any) -> None:
    """A value of an axis is what charts take it for."""
    if axis == "probe_asn":
        assert type(value) is int
    elif axis == "measurement_start_day":
        assert date.fromisoformat(value).isoformat() == value, "the interface makes the same keys to fill holes"
    else:
        assert isinstance(value, str)


def chosen(since: object = None, until: object = None, **wanted: object) -> list[Sample]:
    """The samples that started in a window of days, and have these attributes."""
    return [
        each
        for each in samples()
        if (since is None or str(since) <= str(each.start))
        and (until is None or str(each.start) < str(until))
        and all(getattr(each, name) == value for name, value in wanted.items())
    ]


def check_counts(rows: list[dict[str, Any]], expected: list[Sample]) -> None:
    """The counts of all rows together are those of the samples."""
    assert sum(row["measurement_count"] for row in rows) == len(expected) > 0
    assert sum(row["failure_count"] for row in rows) == sum(each.failure for each in expected)
    assert sum(row["confirmed_count"] for row in rows) == sum(each.confirmed for each in expected)
    assert sum(row["anomaly_count"] for row in rows) == sum(each.anomaly and not each.confirmed for each in expected)


def check_row(row: dict[str, Any]) -> None:
    """A measurement in a list has what the pages show of it."""
    assert re.fullmatch("AS[0-9]+", row["probe_asn"]), "the page splits it there"
    assert re.fullmatch("[A-Z]{2}", row["probe_cc"])
    assert TIME.fullmatch(row["measurement_start_time"])
    assert UID.fullmatch(row["measurement_uid"])
    assert isinstance(row["test_name"], str)
    assert row["input"] is None or (isinstance(row["input"], str) and row["input"])
    assert isinstance(row["scores"], dict)
    for name in ("anomaly", "confirmed", "failure"):
        assert isinstance(row[name], bool)
