"""The repository's own sample of measurement documents: every supported test, in the published formats.

The same seed, time and count give the same documents on every machine.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from probesim import messengers, nettests, websites
from probesim.blockpages import Demonstration, load_demonstration
from probesim.finding import Finding
from probesim.vocabulary import GENERATIONS, Probe, annotations, draw_probe

IDENTITY, ZSTD, GZIP = "identity", "zstd", "gzip"
ENCODINGS = (IDENTITY, ZSTD, GZIP)
"""How a request body may be compressed on its way."""

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
"""Times in measurements: UTC, without a zone."""

_LONGEST_TASK = 6
_BLOCKED_SCENARIOS = frozenset({"web_connectivity/dns_injected", "web_connectivity/block_page"})

_Builder = Callable[[random.Random, Probe, Demonstration], Finding]


def _plain(builder: Callable[[random.Random, Probe], Finding]) -> _Builder:
    return lambda rng, probe, _: builder(rng, probe)


_OTHERS: dict[str, tuple[int, Callable[[random.Random, Probe], Finding]]] = {
    "telegram/ok": (6, messengers.telegram),
    "telegram/endpoints_blocked": (2, messengers.telegram_endpoints_blocked),
    "telegram/web_blocked": (2, messengers.telegram_web_blocked),
    "whatsapp/ok": (6, messengers.whatsapp),
    "whatsapp/registration_blocked": (2, messengers.whatsapp_registration_blocked),
    "whatsapp/endpoints_blocked": (1, messengers.whatsapp_endpoints_blocked),
    "facebook_messenger/ok": (5, messengers.facebook_messenger),
    "facebook_messenger/dns_blocked": (2, messengers.facebook_dns_blocked),
    "facebook_messenger/tcp_blocked": (1, messengers.facebook_tcp_blocked),
    "signal/ok": (5, messengers.signal),
    "signal/blocked": (2, messengers.signal_blocked),
    "tor/ok": (3, nettests.tor),
    "tor/blocked": (1, nettests.tor_blocked),
    "vanilla_tor/ok": (2, nettests.vanilla_tor),
    "vanilla_tor/stuck": (1, nettests.vanilla_tor_stuck),
    "torsf/ok": (2, nettests.torsf),
    "torsf/blocked": (1, nettests.torsf_blocked),
    "psiphon/ok": (3, nettests.psiphon),
    "psiphon/blocked": (1, nettests.psiphon_blocked),
    "psiphon/without_resolver": (1, nettests.psiphon_without_resolver),
    "riseupvpn/ok": (2, nettests.riseupvpn),
    "openvpn/ok": (2, nettests.openvpn),
    "openvpn/blocked": (1, nettests.openvpn_blocked),
    "stunreachability/ok": (1, nettests.stunreachability),
    "stunreachability/blocked": (1, nettests.stunreachability_blocked),
    "http_invalid_request_line/ok": (3, nettests.http_invalid_request_line),
    "http_invalid_request_line/answered": (1, nettests.http_invalid_request_line_answered),
    "http_header_field_manipulation/ok": (3, nettests.http_header_field_manipulation),
    "http_header_field_manipulation/changed": (1, nettests.http_header_field_changed),
    "ndt/ok": (4, nettests.ndt),
    "dash/ok": (3, nettests.dash),
    "dash/broken": (1, nettests.dash_broken),
    "dnscheck/ok": (1, nettests.dnscheck),
    "urlgetter/ok": (1, nettests.urlgetter),
    "echcheck/ok": (1, nettests.echcheck),
    "browser_web/ok": (1, nettests.browser_web),
}

SCENARIOS: dict[str, tuple[int, _Builder]] = {
    **{f"{websites.TEST_NAME}/{name}": pair for name, pair in websites.SCENARIOS.items()},
    **{name: (weight, _plain(builder)) for name, (weight, builder) in _OTHERS.items()},
}
"""Weight and builder of everything that can be measured, by `<test name>/<what happens>`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One measurement and how it reaches the API.

    Documents of one `task` come from one probe and share a report. `scenario` says what the generator had in mind.
    """

    task: int
    generation: str
    encoding: str
    scenario: str
    measurement: dict[str, Any]

    def to_json(self) -> str:
        """Return the line of a sample file."""
        return json.dumps(
            {
                "task": self.task,
                "generation": self.generation,
                "encoding": self.encoding,
                "scenario": self.scenario,
                "measurement": self.measurement,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        )


class SampleFileError(ValueError):
    """A line of a sample file cannot be understood; the message says which and why."""


def generate(count: int, seed: int, now: datetime, *, complete: bool = True) -> Iterator[Document]:
    """Yield `count` documents measured shortly before `now` (an aware time).

    When `complete`, every scenario appears once before the first one appears twice, so that a small sample already has
    everything; otherwise they come by their weights alone, as from many probes.
    """
    rng = random.Random(seed)  # noqa: S311 a reproducible sample, no secret
    shown = load_demonstration()
    for task, scenarios in enumerate(_tasks(rng, count, complete=complete)):
        blocked = any(name in _BLOCKED_SCENARIOS for name in scenarios)
        probe = draw_probe(rng, shown.countries if blocked else None)
        started = now - _age(rng) - timedelta(minutes=5)
        moment = started
        for name in scenarios:
            finding = SCENARIOS[name][1](rng, probe, shown)
            moment += timedelta(seconds=rng.uniform(0.5, 5))
            yield Document(
                task=task,
                generation=probe.software.generation,
                encoding=_encoding(rng, probe.software.generation),
                scenario=name,
                measurement=_measurement(probe, finding, started, moment),
            )


def read_sample(lines: Iterable[str]) -> Iterator[Document]:
    """Read the lines of a sample file; a bare measurement (without the keys of `Document`) comes from a `mobile` probe.

    Raises:
        SampleFileError: naming the line.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise SampleFileError(f"Line {number} is not JSON ({error}). Write one document per line.") from None
        if not isinstance(found, dict):
            raise SampleFileError(f"Line {number} is not a JSON object. Write one document per line.")
        measurement = found.get("measurement", found)
        generation, encoding = found.get("generation", GENERATIONS[0]), found.get("encoding", IDENTITY)
        if not isinstance(measurement, dict) or generation not in GENERATIONS or encoding not in ENCODINGS:
            raise SampleFileError(
                f"Line {number}: generation must be one of {', '.join(GENERATIONS)}, encoding one of "
                f"{', '.join(ENCODINGS)} and measurement an object. Correct the line."
            )
        yield Document(
            int(found.get("task", -number)), generation, encoding, str(found.get("scenario", "")), measurement
        )


def _tasks(rng: random.Random, count: int, *, complete: bool) -> list[list[str]]:
    """Draw `count` scenarios and deal them out to tasks: websites several at a time, everything else alone."""
    names = list(SCENARIOS)
    rng.shuffle(names)
    drawn = names[:count] if complete else []
    if count > len(drawn):
        weights = [weight for weight, _ in SCENARIOS.values()]
        drawn += rng.choices(list(SCENARIOS), weights=weights, k=count - len(drawn))
    visits = [name for name in drawn if name.startswith(f"{websites.TEST_NAME}/")]
    tasks = [[name] for name in drawn if not name.startswith(f"{websites.TEST_NAME}/")]
    while visits:
        size = rng.randrange(1, _LONGEST_TASK + 1)
        tasks.append(visits[:size])
        visits = visits[size:]
    rng.shuffle(tasks)
    return tasks


def _age(rng: random.Random) -> timedelta:
    """Most measurements arrive at once, some when the probe is online again."""
    return timedelta(hours=rng.uniform(1, 40) if rng.random() < 0.2 else rng.uniform(0, 0.8))


def _encoding(rng: random.Random, generation: str) -> str:
    """Only the report route takes compressed bodies; `classic` probes never compress."""
    return ZSTD if generation == "mobile" and rng.random() < 0.3 else IDENTITY


def _measurement(probe: Probe, finding: Finding, started: datetime, moment: datetime) -> dict[str, Any]:
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
