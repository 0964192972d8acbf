"""The world of the simulated probes: countries, networks, software and sites, none of which exist.

Networks carry numbers reserved for private use, addresses lie in the documentation ranges and names below `.example` or
the example domains, so that a demonstration never says anything about a real network or site.
"""

import random
from dataclasses import dataclass
from typing import Any

NETWORKS_PER_COUNTRY: dict[str, int] = {
    "IT": 4, "TR": 3, "RU": 4, "ID": 3, "IR": 3, "IN": 4, "LK": 2, "DE": 3, "US": 4, "BR": 3, "MX": 2, "NG": 2, "KE": 2,
    "ZA": 2, "EG": 2, "VE": 3, "MM": 2, "VN": 2, "TH": 2, "MY": 2, "PK": 2, "BD": 2, "KZ": 2, "UA": 2, "FR": 2, "ES": 2,
}  # fmt: skip
"""Number of simulated networks in each country."""

_FIRST_PRIVATE_ASN = 64512
_FIRST_PRIVATE_ASN_32_BIT = 4200000000
_NETWORK_KINDS = ("Example Telecom", "Example Broadband", "Example Mobile", "Example Campus Network")

SITES: tuple[str, ...] = (
    "https://news.example.org/", "https://www.example.com/", "https://radio.example.net/live", "http://forum.example.org/",
    "https://blog.example.com/2024/", "https://archive.example.net/", "http://library.example/", "https://health.example/faq",
    "https://rights.example.org/", "https://vpn.example.net/download", "https://chat.example/", "https://video.example.com/watch?v=1",
    "http://weather.example.net/", "https://maps.example.com/", "https://election.example/results", "https://wiki.example.org/Main_Page",
    "https://mail.example.com/", "https://shop.example.net/", "http://poetry.example/", "https://daily.example.org/world",
    "https://music.example.com/", "https://minority-language.example/", "https://journalists.example.org/", "https://paper.example.net:8443/",
)  # fmt: skip
"""Inputs of the website tests."""

PROSE: tuple[str, ...] = (
    "The library opens at nine and closes when the last reader leaves.",
    "Rain is expected over the coast this evening, clearing before midnight.",
    "Nobody remembers who planted the orchard, but everybody eats from it.",
    "The ferry runs twice a day in summer and once a week in winter.",
    "A short history of the lighthouse hangs framed beside the stairs.",
    "Readers are invited to send corrections to the editors at example.org.",
    "The committee met on Tuesday and agreed to meet again on Thursday.",
    "Seeds are exchanged in the square on the first Sunday of spring.",
    "This paragraph exists so that a simulated page has something to say.",
    "The museum keeps a collection of maps on which the river never moves.",
)
"""Sentences that fill the pages of the simulated sites."""


@dataclass(frozen=True, slots=True)
class Network:
    """A simulated access network; `asn` is a number reserved for private use."""

    cc: str
    asn: int
    name: str


@dataclass(frozen=True, slots=True)
class Software:
    """An app that runs measurements; `generation` decides how it submits them."""

    generation: str
    name: str
    version: str
    platform: str
    architecture: str
    engine_name: str
    engine_version: str


@dataclass(frozen=True, slots=True)
class Probe:
    """One simulated user: an app in a network."""

    network: Network
    software: Software
    network_type: str
    resolver_ip: str
    run_link: str
    sites: tuple[str, ...] = SITES
    """What its website tests visit."""


def _networks() -> tuple[Network, ...]:
    found: list[Network] = []
    for cc, count in NETWORKS_PER_COUNTRY.items():
        for index in range(count):
            # Some networks have numbers above 2^31, which tables and parsers must carry too.
            first = _FIRST_PRIVATE_ASN_32_BIT if index == 3 else _FIRST_PRIVATE_ASN
            found.append(Network(cc, first + len(found), f"{_NETWORK_KINDS[index]} {cc}"))
    return tuple(found)


NETWORKS: tuple[Network, ...] = _networks()
"""Every simulated network."""

GENERATIONS = ("mobile", "cli", "legacy")
"""How probes submit: `mobile` and `legacy` through a report, `cli` one measurement at a time without one. `legacy`
ones close their reports."""

SOFTWARE: tuple[tuple[int, Software], ...] = (
    (40, Software("mobile", "ooniprobe-android", "5.2.1", "android", "arm64", "ooniprobe-engine", "3.27.0")),
    (20, Software("mobile", "ooniprobe-ios", "5.2.0", "ios", "arm64", "ooniprobe-engine", "3.26.0")),
    (15, Software("cli", "ooniprobe-cli", "3.31.0", "linux", "amd64", "ooniprobe-engine", "3.31.0")),
    (10, Software("cli", "ooniprobe-desktop-unattended", "3.31.0", "macos", "arm64", "ooniprobe-engine", "3.31.0")),
    (5, Software("cli", "miniooni", "3.31.0-alpha", "windows", "amd64", "ooniprobe-engine", "3.31.0-alpha")),
    (6, Software("legacy", "ooniprobe-android", "3.8.3", "android", "armv7", "ooniprobe-engine", "3.18.1")),
    (4, Software("legacy", "ooniprobe-cli-unattended", "3.17.2", "linux", "arm", "ooniprobe-engine", "3.17.2")),
)
"""Weight and description of each simulated app."""


def draw_probe(rng: random.Random, countries: frozenset[str] | None = None, *, generation: str | None = None) -> Probe:
    """Draw a probe, in one of `countries` and of a generation when given."""
    networks = [network for network in NETWORKS if countries is None or network.cc in countries]
    apps = [(weight, item) for weight, item in SOFTWARE if generation in (None, item.generation)]
    software = rng.choices([item for _, item in apps], weights=[weight for weight, _ in apps])[0]
    links = ("wifi", "mobile") if software.generation == "mobile" else ("wifi", "mobile", "wired_ethernet")
    return Probe(
        network=rng.choice(networks or list(NETWORKS)),
        software=software,
        network_type=rng.choice(links),
        resolver_ip=f"192.0.2.{rng.randrange(100, 250)}",
        run_link=rng.choice(("", "", "", "10004", "10012")),
    )


def annotations(probe: Probe) -> dict[str, Any]:
    """Return the annotations that the probe's engine adds to every measurement."""
    software = probe.software
    found = {
        "architecture": software.architecture,
        "engine_name": software.engine_name,
        "engine_version": software.engine_version,
        "go_version": "go1.21.13",
        "network_type": probe.network_type,
        "platform": software.platform,
        "origin": "autorun" if probe.network_type == "wifi" else "user",
        "vcs_modified": "",
        "vcs_revision": "",
        "vcs_time": "",
        "vcs_tool": "",
    }
    if probe.run_link:
        found["ooni_run_link_id"] = probe.run_link
    return found


def site_address(rng: random.Random) -> str:
    """Draw the address of a simulated server (documentation range; away from the block pages' addresses)."""
    return f"198.51.100.{rng.randrange(100, 250)}"


def page(rng: random.Random, title: str, size: int) -> str:
    """Write an HTML page of about `size` bytes."""
    parts = [f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n<body>\n']
    length = len(parts[0])
    while length < size:
        paragraph = f"<p>{' '.join(rng.choices(PROSE, k=rng.randrange(3, 8)))}</p>\n"
        parts.append(paragraph)
        length += len(paragraph)
    return "".join([*parts, "</body>\n</html>\n"])
