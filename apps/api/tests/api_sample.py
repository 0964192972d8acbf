"""A small sample of measurements, made up: it makes the examples of the description true, and fills every chart.

The store of the fastpath writes the rows, so that counters agree with them; bodies lie in the spool. For the statistics
of the last weeks, days are counted back from today.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from finding_sample import load_findings
from run_link_sample import load_run_links

from api.openapi.schemas import REPORT_ID, UID, URL
from core.spool import Spool
from fastpath.row import Row, fallback_row
from fastpath.store import Store

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
DAY = timedelta(days=1)

NORMAL = {"blocking_general": 0.0, "blocking_global": 0.0, "blocking_country": 0.0, "blocking_isp": 0.0}
ANOMALY = {**NORMAL, "blocking_general": 1.0, "analysis": {"blocking_type": "dns"}}
CONFIRMED = {**ANOMALY, "blocking_country": 10.0, "confirmed": True, "analysis": {"blocking_type": "http-diff"}}
FAILURE = {**NORMAL, "accuracy": 0.0, "msg": "Measurement failed."}
TOR = {**NORMAL, "extra": {"test_runtime": 42.5}}

TEST_LIST = [
    ("www.example.org", URL, "ZZ", "NEWS"),
    ("www.example.org", URL, "it", "CULTR"),
    ("blocked.example", "https://blocked.example/", "ZZ", "HUMR"),
    ("news.example", "https://news.example/", "it", "NEWS"),
]
"""Entries of the test lists: domain, URL, list, category."""

NETWORKS = [
    (34245, "2023-01-01", "Example Networks"),
    (30722, "2022-01-01", "Old Name"),
    (30722, "2024-01-01", "Example ISP"),
]
"""Names of networks and since when; 3320 has none."""


@dataclass(frozen=True)
class Sample:
    """One measurement: what its row says, and its body."""

    start: datetime
    number: int
    cc: str = "IT"
    asn: int = 30722
    test: str = "web_connectivity"
    input: str = URL
    scores: dict[str, Any] = field(default_factory=lambda: NORMAL)
    anomaly: bool = False
    confirmed: bool = False
    failure: bool = False
    run_link: int | None = None
    uid_: str | None = None
    report_id_: str | None = None

    @property
    def uid(self) -> str:
        short = self.test.replace("_", "")
        return self.uid_ or f"{self.start:%Y%m%d%H%M%S}.{self.number:06d}_{self.cc}_{short}_{self.number:016x}"

    @property
    def report_id(self) -> str:
        short = self.test.replace("_", "")
        return self.report_id_ or f"{self.start:%Y%m%dT%H%M%SZ}_{short}_{self.cc}_{self.asn}_n1_{self.number:016d}"

    @property
    def domain(self) -> str:
        return self.input.split("/")[2] if "//" in self.input else ""

    def row(self) -> Row:
        return msgspec.structs.replace(
            fallback_row(self.uid, None, "sample", self.report_id),
            reason=None,
            input=self.input,
            domain=self.domain,
            probe_cc=self.cc,
            probe_asn=self.asn,
            test_name=self.test,
            test_start_time=self.start - timedelta(seconds=30),
            measurement_start_time=self.start,
            scores=json.dumps(self.scores),
            anomaly=self.anomaly,
            confirmed=self.confirmed,
            msm_failure=self.failure,
            blocking_type=str(self.scores.get("analysis", {}).get("blocking_type", "")),
            software_name="ooniprobe-android",
            software_version="3.20.0",
            engine_name="ooniprobe-engine",
            engine_version="3.20.0",
            test_version="0.4.3",
            platform="android",
            test_runtime=1.5,
            ooni_run_link_id=self.run_link,
        )

    def body(self) -> dict[str, Any]:
        return {
            "annotations": {"platform": "android"},
            "data_format_version": "0.2.0",
            "input": self.input or None,
            "measurement_start_time": f"{self.start:%Y-%m-%d %H:%M:%S}",
            "probe_asn": f"AS{self.asn}",
            "probe_cc": self.cc,
            "report_id": self.report_id,
            "software_name": "ooniprobe-android",
            "software_version": "3.20.0",
            "test_keys": {"accessible": not self.anomaly},
            "test_name": self.test,
            "test_start_time": f"{self.start - timedelta(seconds=30):%Y-%m-%d %H:%M:%S}",
            "test_version": "0.4.3",
        }


def _states(start: datetime, first: int, **more: Any) -> Iterator[Sample]:
    """A normal, an anomalous, a confirmed and a failed measurement, a minute apart."""
    kinds: list[dict[str, Any]] = [
        {"scores": NORMAL},
        {"scores": ANOMALY, "anomaly": True},
        {"scores": CONFIRMED, "anomaly": True, "confirmed": True},
        {"scores": FAILURE, "failure": True},
    ]
    for number, kind in enumerate(kinds):
        yield Sample(start + timedelta(minutes=number), first + number, **(kind | more))


EXAMPLE = Sample(
    datetime(2024, 1, 1, 0, 1),  # noqa: DTZ001 UTC without a zone, as the column
    123456,
    cc="IE",
    asn=34245,
    uid_=UID,
    report_id_=REPORT_ID,
)
"""The measurement of all examples."""

RECENT = list(_states(TODAY - 5 * DAY + timedelta(hours=7), 100))
"""One of each kind, five days old, of one URL, country and network."""


def samples() -> list[Sample]:
    """Return the whole sample."""
    found = [EXAMPLE, *RECENT]
    found += _states(datetime(2024, 1, 2, 3), 200, cc="IE", asn=34245)  # noqa: DTZ001
    found += _states(datetime(2024, 1, 20, 5), 210, cc="IE", asn=34245, input="https://blocked.example/")  # noqa: DTZ001
    found += _states(TODAY - 12 * DAY + timedelta(hours=1), 300, input="https://blocked.example/", asn=3320, cc="DE")
    found += _states(TODAY - 40 * DAY, 400, input="https://news.example/")
    found += _states(TODAY - 400 * DAY, 410)
    number = 1000
    for days in (3, 4, 9, 20, 70):
        for test in ("whatsapp", "facebook_messenger", "telegram", "signal", "vanilla_tor", "ndt", "dash"):
            number += 1
            found.append(Sample(TODAY - days * DAY + timedelta(hours=2), number, test=test, input=""))
        for test in ("tor", "torsf", "psiphon", "stunreachability", "riseupvpn"):
            number += 1
            found.append(Sample(TODAY - days * DAY + timedelta(hours=3), number, test=test, input="", scores=TOR))
    found.append(Sample(datetime(2024, 1, 3, 4), 2000, cc="IE", asn=34245, test="torsf", input="", scores=TOR))  # noqa: DTZ001
    found.append(Sample(TODAY - 2 * DAY, 2001, run_link=10001))
    return found


def load(dsn: str, spool: Spool) -> list[Sample]:
    """Write the sample to a database with the schema, and its bodies to a spool."""
    found = samples()
    store = Store(dsn)
    try:
        new = store.insert([sample.row() for sample in found])
    finally:
        store.close()
    assert len(new) == len(found)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)", TEST_LIST)
        cursor.executemany("INSERT INTO asnmeta (asn, changed, org_name) VALUES (%s, %s, %s)", NETWORKS)
    load_run_links(dsn)
    load_findings(dsn)
    for sample in found:
        body = json.dumps({"content": sample.body(), "format": "json"}).encode()
        spool.put(sample.uid, body, sample.report_id)
    return found
