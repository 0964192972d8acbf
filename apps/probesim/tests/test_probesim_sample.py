"""The generator: the same everywhere, of the published shapes, and with everything in it."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from core import networks
from core.testnames import KNOWN_TEST_NAMES
from probesim.blockpages import load_demonstration
from probesim.sample import SCENARIOS, Document, SampleFileError, generate, read_sample
from probesim.vocabulary import GENERATIONS, NETWORKS

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
COUNT = 300

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_EVERY_KEY = {
    "annotations": dict,
    "data_format_version": str,
    "measurement_start_time": str,
    "probe_asn": str,
    "probe_cc": str,
    "probe_ip": str,
    "software_name": str,
    "software_version": str,
    "test_helpers": dict,
    "test_keys": dict,
    "test_name": str,
    "test_runtime": float,
    "test_start_time": str,
    "test_version": str,
}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(generate(COUNT, 1, NOW))


def test_same_seed_gives_the_same_documents_and_another_seed_others(documents):
    assert list(generate(COUNT, 1, NOW)) == documents
    assert list(generate(COUNT, 2, NOW)) != documents


def test_a_sample_has_the_asked_size_and_every_scenario_from_the_start():
    for count in (1, 7, len(SCENARIOS), COUNT):
        assert len(list(generate(count, 3, NOW))) == count
    small = Counter(document.scenario for document in generate(len(SCENARIOS), 3, NOW))
    assert small == Counter(SCENARIOS.keys())


def test_documents_look_like_measurements(documents):
    for document in documents:
        measurement = document.measurement
        for key, kind in _EVERY_KEY.items():
            assert isinstance(measurement[key], kind), (document.scenario, key)
        assert measurement["test_name"] == document.scenario.split("/")[0]
        assert re.fullmatch(r"AS[1-9]\d*", measurement["probe_asn"])
        assert re.fullmatch(r"[A-Z]{2}", measurement["probe_cc"])
        assert measurement["probe_ip"] == "127.0.0.1", "no address of a user"
        assert ("report_id" in measurement) == (document.generation != "cli")


def test_times_are_recent_and_in_order(documents):
    for document in documents:
        began, measured = (document.measurement[key] for key in ("test_start_time", "measurement_start_time"))
        assert _TIME.fullmatch(began)
        assert _TIME.fullmatch(measured)
        assert "2024-05-04" < began <= measured <= "2024-05-06 07:08:09"


def test_bodies_are_of_realistic_size(documents):
    sizes = sorted(len(json.dumps(document.measurement)) for document in documents)
    assert sizes[0] > 700
    assert sizes[-1] < 64_000
    assert sizes[len(sizes) // 2] > 1500
    assert any(size > 15_000 for size in sizes)


def test_there_are_many_countries_networks_tests_and_all_generations(documents):
    seen = [document.measurement for document in documents]
    assert len({measurement["probe_cc"] for measurement in seen}) >= 20
    assert len({measurement["probe_asn"] for measurement in seen}) >= 45
    assert {document.generation for document in documents} == set(GENERATIONS)
    assert {document.encoding for document in documents} == {"identity", "zstd"}
    assert len({measurement["test_name"] for measurement in seen} & set(KNOWN_TEST_NAMES)) >= 15


def test_networks_are_reserved_for_private_use(documents):
    for document in documents:
        number = int(document.measurement["probe_asn"].removeprefix("AS"))
        assert 64512 <= number <= 65534 or 4_200_000_000 <= number <= 4_294_967_294


def test_sites_are_example_names(documents):
    for document in documents:
        if document.measurement["test_name"] == "web_connectivity":
            host = urlsplit(document.measurement["input"]).hostname or ""
            assert re.search(r"(^|\.)(example|example\.(com|net|org))$", host), host


def test_documents_of_a_task_share_probe_and_report(documents):
    tasks: dict[int, list[Document]] = {}
    for document in documents:
        tasks.setdefault(document.task, []).append(document)
    assert max(len(task) for task in tasks.values()) > 1
    for task in tasks.values():
        shared = {
            (d.generation, *(d.measurement[key] for key in ("probe_asn", "probe_cc", "test_name", "test_start_time")))
            for d in task
        }
        assert len(shared) == 1


def test_blocked_sites_carry_a_demonstration_fingerprint(documents):
    shown = load_demonstration()
    addresses = {item.pattern for item in shown.dns}
    injected = [d for d in documents if d.scenario == "web_connectivity/dns_injected"]
    served = [d for d in documents if d.scenario == "web_connectivity/block_page"]
    assert injected
    assert served
    for document in injected:
        assert _answers(document.measurement) & addresses
    for document in served:
        response = document.measurement["test_keys"]["requests"][0]["response"]
        headers = {name.lower(): value for name, value in response["headers"].items()}
        assert any(
            item.pattern in response["body"]
            if item.location == "body"
            else headers.get(item.location.removeprefix("header."), "").startswith(item.pattern)
            for item in shown.http
        )


def test_other_sites_carry_none(documents):
    shown = load_demonstration()
    addresses, bodies = {item.pattern for item in shown.dns}, [i.pattern for i in shown.http if i.location == "body"]
    for document in documents:
        if document.scenario == "web_connectivity/accessible":
            assert not _answers(document.measurement) & addresses
            body = document.measurement["test_keys"]["requests"][0]["response"]["body"]
            assert not any(pattern in body for pattern in bodies)


def test_sample_lines_are_read_back(documents):
    lines = [document.to_json() for document in documents]
    assert list(read_sample(lines)) == documents


def test_a_bare_measurement_is_read_too():
    (document,) = read_sample(['{"test_name": "ndt"}'])
    assert document.measurement == {"test_name": "ndt"}
    assert (document.generation, document.encoding) == ("mobile", "identity")


@pytest.mark.parametrize("line", ["{", "[]", '{"measurement": 1}', '{"measurement": {}, "generation": "none"}'])
def test_a_wrong_line_is_named(line):
    with pytest.raises(SampleFileError, match="Line 2"):
        list(read_sample(["{}", line]))


def _answers(measurement: dict[str, Any]) -> set[str]:
    found = set()
    for query in measurement["test_keys"]["queries"]:
        for answer in query["answers"] or ():
            found |= {answer.get("ipv4"), answer.get("ipv6"), answer.get("hostname")}
    return found - {None}


def test_without_completeness_scenarios_come_by_their_weights():
    one_each = [next(iter(generate(1, seed, NOW, complete=False))) for seed in range(300)]
    websites = sum(document.scenario == "web_connectivity/accessible" for document in one_each)
    assert 60 < websites < 180


def test_every_simulated_network_has_its_name_in_the_sample_of_names():
    named = {(name.asn, name.org_name, name.cc) for name in networks.read(networks.SAMPLE)}
    assert named == {(network.asn, network.name, network.cc) for network in NETWORKS}
