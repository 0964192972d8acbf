"""Turns what a test found into the document that its probe writes."""

from datetime import datetime
from typing import Any

from probesim.finding import Finding
from probesim.vocabulary import Probe, annotations

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
"""Times in measurements: UTC, without a zone."""


def write_measurement(probe: Probe, finding: Finding, started: datetime, moment: datetime) -> dict[str, Any]:
    """Return the measurement of a test run that began at `started`, taken at `moment` (UTC).

    The current CLI leaves `report_id` to the server; the others fill it in when they have opened a report.
    """
    software, network = probe.software, probe.network
    document: dict[str, Any] = {
        "annotations": annotations(probe),
        "data_format_version": "0.2.0",
        "extensions": {"dnst": 0, "httpt": 0, "netevents": 0, "tcpconnect": 0, "tlshandshake": 0},
        "input": finding.input,
        "measurement_start_time": moment.strftime(TIME_FORMAT),
        "probe_asn": f"AS{network.asn}",
        "probe_cc": network.cc,
        "probe_ip": "127.0.0.1",
        "probe_network_name": network.name,
        "report_id": "",
        "resolver_asn": f"AS{network.asn}",
        "resolver_ip": probe.resolver_ip,
        "resolver_network_name": network.name,
        "software_name": software.name,
        "software_version": software.version,
        "test_helpers": finding.test_helpers,
        "test_keys": finding.test_keys,
        "test_name": finding.test_name,
        "test_runtime": round(finding.runtime, 9),
        "test_start_time": started.strftime(TIME_FORMAT),
        "test_version": finding.test_version,
    }
    if software.generation == "cli":
        del document["report_id"]  # the current CLI leaves it to the server
    if finding.without_resolver:
        for key in ("resolver_asn", "resolver_ip", "resolver_network_name"):
            del document[key]
    return document
