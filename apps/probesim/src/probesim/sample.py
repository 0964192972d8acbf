"""The repository's own sample of measurement documents: every supported test, in the published formats.

The same seed, time and count give the same documents on every machine.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from probesim import circumvention, legacytests, messengers, middleboxes, nettests, websites
from probesim.blockpages import Demonstration, load_demonstration
from probesim.finding import Finding
from probesim.measurement import write_measurement
from probesim.vocabulary import GENERATIONS, Probe, draw_probe

IDENTITY, ZSTD, GZIP = "identity", "zstd", "gzip"
ENCODINGS = (IDENTITY, ZSTD, GZIP)
"""How a request body may be compressed on its way."""

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
    "tor/ok": (3, circumvention.tor),
    "tor/blocked": (1, circumvention.tor_blocked),
    "vanilla_tor/ok": (2, circumvention.vanilla_tor),
    "vanilla_tor/stuck": (1, circumvention.vanilla_tor_stuck),
    "torsf/ok": (2, circumvention.torsf),
    "torsf/blocked": (1, circumvention.torsf_blocked),
    "psiphon/ok": (3, circumvention.psiphon),
    "psiphon/blocked": (1, circumvention.psiphon_blocked),
    "psiphon/without_resolver": (1, circumvention.psiphon_without_resolver),
    "riseupvpn/ok": (2, circumvention.riseupvpn),
    "openvpn/ok": (2, circumvention.openvpn),
    "openvpn/blocked": (1, circumvention.openvpn_blocked),
    "stunreachability/ok": (1, circumvention.stunreachability),
    "stunreachability/blocked": (1, circumvention.stunreachability_blocked),
    "http_invalid_request_line/ok": (3, middleboxes.http_invalid_request_line),
    "http_invalid_request_line/answered": (1, middleboxes.http_invalid_request_line_answered),
    "http_header_field_manipulation/ok": (3, middleboxes.http_header_field_manipulation),
    "http_header_field_manipulation/changed": (1, middleboxes.http_header_field_changed),
    "ndt/ok": (4, nettests.ndt),
    "dash/ok": (3, nettests.dash),
    "dash/broken": (1, nettests.dash_broken),
    "dnscheck/ok": (1, nettests.dnscheck),
    "urlgetter/ok": (1, nettests.urlgetter),
    "echcheck/ok": (1, nettests.echcheck),
    "browser_web/ok": (1, nettests.browser_web),
    "http_requests/ok": (1, legacytests.http_requests),
    "http_requests/different": (1, legacytests.http_requests_different),
    "dns_consistency/ok": (1, legacytests.dns_consistency),
    "tcp_connect/ok": (1, legacytests.tcp_connect),
    "tcp_connect/blocked": (1, legacytests.tcp_connect_blocked),
    "meek_fronted_requests_test/ok": (1, legacytests.meek_fronted_requests),
    "meek_fronted_requests_test/blocked": (1, legacytests.meek_fronted_requests_blocked),
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
                measurement=write_measurement(probe, finding, started, moment),
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
    """Only the report route takes compressed bodies; `legacy` probes never compress."""
    return ZSTD if generation == "mobile" and rng.random() < 0.3 else IDENTITY
