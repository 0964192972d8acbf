"""The row of table `obs_openvpn` of a measurement of the test openvpn (the wire contract, 11.2).

Two columns are kept as the original system has them, because its readers know them so: `anomaly` is true only when a
top-level key `success` is, which no probe sends, and `platform` is a top-level key as well. What the measurement says
of both is in its row of table `fastpath`. A value of a type that its column cannot hold becomes "", 0 or false.
"""

from typing import Any

from fastpath.observation import Observation
from fastpath.row import storable
from fastpath.shape import Measurement

TEST_NAME = "openvpn"

_LARGEST = 2**63 - 1


def observe(measurement: Measurement) -> Observation:
    """Return what a document says of its connection attempt. Never raises."""
    keys = measurement.get("test_keys")
    tk: Measurement = keys if type(keys) is dict else {}
    return Observation(
        anomaly=measurement.get("success") is True,
        bootstrap_time=_number(tk.get("bootstrap_time")),
        failure=_text(tk.get("failure")),
        last_handshake_transaction_id=_last_transaction(tk.get("network_events")),
        minivpn_version=_text(tk.get("minivpn_version")),
        obfs4_version=_text(tk.get("obfs4_version")),
        obfuscation=_text(tk.get("obfuscation")),
        platform=_text(measurement.get("platform")),
        probe_network_name=_text(measurement.get("probe_network_name")),
        provider=_text(tk.get("provider")),
        remote=_text(tk.get("remote")),
        resolver_asn=_asn(measurement.get("resolver_asn")),
        resolver_ip=_text(measurement.get("resolver_ip")),
        resolver_network_name=_text(measurement.get("resolver_network_name")),
        success=bool(tk.get("success")),
        success_handshake=bool(tk.get("success_handshake")),
        success_icmp=bool(tk.get("success_icmp")),
        success_urlgrab=bool(tk.get("success_urlgrab")),
        transport=_text(tk.get("transport")),
    )


def _text(value: Any) -> str:
    return storable(value) if type(value) is str else ""


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        return 0.0
    try:
        return float(value)
    except OverflowError:
        return 0.0


def _last_transaction(events: Any) -> int:
    """Return the highest `transaction_id`; 0 when there is none, or any event has none that is an integer."""
    if type(events) is not list or not events:
        return 0
    ids: list[Any] = [event.get("transaction_id") if type(event) is dict else None for event in events]
    if not all(type(number) is int for number in ids):
        return 0
    highest: int = max(ids)
    return highest if abs(highest) <= _LARGEST else 0


def _asn(value: Any) -> int:
    if type(value) is not str:
        return 0
    try:
        asn = int(value.removeprefix("AS"))
    except ValueError:
        return 0
    return asn if 0 <= asn <= _LARGEST else 0
