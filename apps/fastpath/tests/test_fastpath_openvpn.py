"""Rows of obs_openvpn: what is read from the document, and that they live and go with the measurement's row."""

import base64
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastpath.fingerprints import from_rows
from fastpath.matcher import Matcher
from fastpath.observation import Observation
from fastpath.openvpn_rows import observe
from fastpath.process import process
from fastpath.row import Row, storable
from fastpath.store import RowsRefused, Store

Measure = Callable[..., tuple[str, bytes]]

CORPUS = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3].parent / "shared")) / "corpus"
MATCHER = Matcher(from_rows([], []))
OPENVPN: dict[str, Any] = {
    "test_name": "openvpn",
    "input": "openvpn://provider.example/?address=192.0.2.7:1194&transport=udp",
    "probe_network_name": "Example Net",
    "resolver_asn": "AS64500",
    "resolver_ip": "192.0.2.53",
    "resolver_network_name": "Example DNS",
    "test_keys": {
        "success": True,
        "success_handshake": True,
        "success_icmp": None,
        "bootstrap_time": 1.25,
        "failure": None,
        "minivpn_version": "v0.0.6",
        "obfs4_version": "v0.0.14",
        "obfuscation": "none",
        "provider": "example",
        "remote": "192.0.2.7:1194",
        "transport": "udp",
        "network_events": [{"transaction_id": 3}, {"transaction_id": 11}, {"transaction_id": 7}],
    },
}


def row_of(measurement: Measure, number: int = 1, **changes: Any) -> Row:
    row = process(*measurement(number, **{**OPENVPN, **changes}), MATCHER).row
    assert row is not None
    return row


def test_a_measurement_has_one_observation(measurement: Measure) -> None:
    row = row_of(measurement)
    assert row.observation == Observation(
        anomaly=False,
        bootstrap_time=1.25,
        failure="",
        last_handshake_transaction_id=11,
        minivpn_version="v0.0.6",
        obfs4_version="v0.0.14",
        obfuscation="none",
        platform="",
        probe_network_name="Example Net",
        provider="example",
        remote="192.0.2.7:1194",
        resolver_asn=64500,
        resolver_ip="192.0.2.53",
        resolver_network_name="Example DNS",
        success=True,
        success_handshake=True,
        success_icmp=False,
        success_urlgrab=False,
        transport="udp",
    )
    assert "observation" not in row.as_dict()


def test_other_tests_have_none(measurement: Measure) -> None:
    assert row_of(measurement, test_name="ndt").observation is None


def test_a_measurement_that_cannot_be_scored_has_one_all_the_same(measurement: Measure) -> None:
    row = row_of(measurement, test_start_time="yesterday")
    assert row.reason == "bad_test_start_time"
    assert row.observation is not None
    assert row.observation.provider == "example"


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("network_events", None, 0),
        ("network_events", [], 0),
        ("network_events", {}, 0),
        ("network_events", [{"transaction_id": 1}, {}], 0),
        ("network_events", [{"transaction_id": 1}, None], 0),
        ("network_events", [{"transaction_id": "9"}], 0),
        ("network_events", [{"transaction_id": 2**63}], 0),
        ("network_events", [{"transaction_id": 2**63 - 1}], 2**63 - 1),
    ],
)
def test_the_last_handshake_is_0_when_anything_is_odd(key: str, value: Any, wanted: int) -> None:
    assert observe({"test_keys": {key: value}}).last_handshake_transaction_id == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("AS12", 12), ("12", 12), ("AS", 0), ("", 0), (12, 0), (None, 0), ("AS-1", 0), ("ASAS1", 0), ("9" * 30, 0)],
)
def test_the_network_of_the_resolver(value: Any, wanted: int) -> None:
    assert observe({"resolver_asn": value}).resolver_asn == wanted


@pytest.mark.parametrize(
    "odd", [None, 0, 1, True, 10**400, -0.0, float("nan"), "", "a\0\ud800", [], [[]], {}, {"a": 1}]
)
def test_no_value_of_any_type_raises(odd: Any) -> None:
    keys = [*Observation.__struct_fields__, "network_events", "test_keys"]
    everywhere = dict.fromkeys(keys, odd)
    for document in (
        {**everywhere, "test_keys": everywhere},
        {"test_keys": odd},
        {"test_keys": {"network_events": [odd]}},
    ):
        for value in vars_of(observe(document)):
            assert not isinstance(value, str) or value == storable(value)
            assert value is not None


def vars_of(observation: Observation) -> list[Any]:
    return [getattr(observation, name) for name in Observation.__struct_fields__]


def test_a_top_level_success_is_an_anomaly_as_it_always_was() -> None:
    assert observe({"success": True}).anomaly
    assert not observe({"success": 1, "test_keys": {"success": False}}).anomaly


# The table ------------------------------------------------------------------------------------------------------------


def observations(dsn: str) -> dict[str, str]:
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT measurement_uid, provider FROM obs_openvpn").fetchall())


def test_observations_are_written_with_the_row_and_replaced_with_it(fastpath_dsn: str, measurement: Measure) -> None:
    store = Store(fastpath_dsn)
    row = row_of(measurement)
    other = row_of(measurement, 2, test_name="ndt")
    uid = row.measurement_uid
    assert len(store.insert([row, other])) == 2
    assert observations(fastpath_dsn) == {uid: "example"}
    keys = {**OPENVPN["test_keys"], "provider": "another"}
    changed = row_of(measurement, test_keys=keys)
    again = Row(**{**row.as_dict(), "observation": changed.observation})
    assert store.insert([again]) == set()
    assert observations(fastpath_dsn) == {uid: "example"}
    store.replace([again])
    assert observations(fastpath_dsn) == {uid: "another"}
    store.replace([Row(**{**row.as_dict(), "test_name": "ndt"})])
    assert observations(fastpath_dsn) == {}
    store.insert_missing([row, other])  # its row exists, its observation does not
    assert observations(fastpath_dsn) == {uid: "example"}
    store.close()
    with psycopg.connect(fastpath_dsn) as connection:
        found = connection.execute(
            "SELECT f.probe_cc = o.probe_cc AND f.probe_asn = o.probe_asn AND f.report_id = o.report_id"
            " AND f.input = o.input AND f.measurement_start_time = o.measurement_start_time"
            " AND f.test_runtime = o.test_runtime AND f.software_name = o.software_name"
            " FROM obs_openvpn o JOIN fastpath f USING (measurement_uid)"
        ).fetchone()
    assert found == (True,)


def test_a_refused_transaction_writes_neither(fastpath_dsn: str, measurement: Measure) -> None:
    store = Store(fastpath_dsn)
    row = row_of(measurement)
    with pytest.raises(RowsRefused):
        store.insert([Row(**{**row.as_dict(), "platform": "nul\0", "observation": row.observation})])
    assert observations(fastpath_dsn) == {}
    store.close()


def test_the_daemon_writes_them(daemon: Any, measurement: Measure) -> None:
    daemon.start(workers=1)
    uid, body = measurement(1, **OPENVPN)
    assert daemon.post(uid, body) == 200
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})
    assert observations(daemon.dsn) == {uid: "example"}
    daemon.wait_for(lambda: daemon.metrics()["fastpath_openvpn_observations_total"] == 1)
    assert 'fastpath_score_seconds_count{test_name="openvpn"}' in daemon.metrics()


# The corpus -----------------------------------------------------------------------------------------------------------


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(CORPUS / name) as file:
        return [json.loads(line) for line in file]


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no corpus at {CORPUS}; set SHARED_DIR to where it is")
def test_observations_equal_the_corpus() -> None:
    """The original put values of any type into text columns, where its database refused them; ours are empty then."""
    expected = {line["id"]: line["obs_openvpn"] for line in lines("expected.jsonl.gz") if "obs_openvpn" in line}
    seen = 0
    for document in lines("measurements.jsonl.gz"):
        wanted = expected.get(document["id"])
        if wanted is None:
            continue
        raw = document.get("raw_b64")
        body = json.dumps(document["post"]).encode() if raw is None else base64.b64decode(raw)
        row = process(document["uid"], body, MATCHER).row
        assert row is not None
        assert row.observation is not None
        have = {**row.as_dict(), **{name: getattr(row.observation, name) for name in Observation.__struct_fields__}}
        for name, value in wanted.items():
            got = have[name]
            if type(value) is str and not isinstance(got, str | float | int):
                got = str(got)  # times
            same_kind = isinstance(value, bool) == isinstance(got, bool) and isinstance(value, str) == isinstance(
                got, str
            )
            assert got == value if same_kind and value is not None else not got, (document["id"], name, value, got)
        seen += 1
    assert seen == len(expected) > 50
