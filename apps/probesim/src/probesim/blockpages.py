"""What a censored network serves: built around the demonstration fingerprints, so that the scorer recognises it."""

import json
import random
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from probesim.vocabulary import NETWORKS_PER_COUNTRY

_DNS_FILE, _HTTP_FILE = "fingerprints_dns.json", "fingerprints_http.json"
_HEADER_PREFIX = "header."


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A row of a demonstration list; `countries` are those with simulated networks in which it confirms blocking."""

    name: str
    location: str
    kind: str
    pattern: str
    countries: frozenset[str]


@dataclass(frozen=True, slots=True)
class BlockPage:
    """An HTTP response that carries a fingerprint."""

    code: int
    body: str
    headers: dict[str, str]


class Demonstration:
    """The demonstration fingerprints that can confirm a blocking, by where they are found."""

    def __init__(self, dns: list[Fingerprint], http: list[Fingerprint]) -> None:
        """Keep the usable ones of both lists."""
        self.dns = dns
        self.http = http

    @property
    def countries(self) -> frozenset[str]:
        """The countries for which both lists have something."""
        return frozenset().union(*(item.countries for item in self.dns)) & frozenset().union(
            *(item.countries for item in self.http)
        )

    def draw_dns(self, rng: random.Random, cc: str) -> Fingerprint:
        """Draw a fingerprint that is an address (or name) in a DNS answer, of country `cc` when there is one."""
        return _draw(rng, self.dns, cc)

    def draw_http(self, rng: random.Random, cc: str) -> Fingerprint:
        """Draw a fingerprint of a block page's body or headers, of country `cc` when there is one."""
        return _draw(rng, self.http, cc)


def load_demonstration() -> Demonstration:
    """Read the lists that the repository ships (the ones `make run` imports into the database)."""
    return Demonstration(dns=_load(_DNS_FILE), http=_load(_HTTP_FILE))


def block_page(rng: random.Random, fingerprint: Fingerprint) -> BlockPage:
    """Return a response that `fingerprint` matches."""
    headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
    if fingerprint.location.startswith(_HEADER_PREFIX):
        name = fingerprint.location.removeprefix(_HEADER_PREFIX).title()
        suffix = "" if fingerprint.kind == "full" else f"{rng.randrange(1000, 10_000)}"
        headers[name] = fingerprint.pattern + suffix
        code = 302 if name == "Location" else 403
        return BlockPage(code, "", headers)
    if fingerprint.kind == "full":
        return BlockPage(200, fingerprint.pattern, headers)
    number = rng.randrange(1, 10_000)
    return BlockPage(200, f"<html><body>{fingerprint.pattern}<p>Reference {number}</p></body></html>", headers)


def answer(address: str) -> dict[str, Any]:
    """Return one DNS answer in the published format, for an IPv4 or IPv6 address or a canonical name."""
    if ":" in address:
        return {"answer_type": "AAAA", "ipv6": address, "ttl": None}
    if address.replace(".", "").isdigit():
        return {"answer_type": "A", "ipv4": address, "ttl": None, "asn": 64999, "as_org_name": "Example Hosting"}
    return {"answer_type": "CNAME", "hostname": address, "ttl": None}


def _draw(rng: random.Random, fingerprints: list[Fingerprint], cc: str) -> Fingerprint:
    local = [item for item in fingerprints if cc in item.countries]
    return rng.choice(local or fingerprints)


def _load(name: str) -> list[Fingerprint]:
    rows = json.loads((files("core") / "data" / name).read_text(encoding="utf-8"))
    return [found for found in map(_fingerprint, rows) if found.countries and _can_confirm(found)]


def _fingerprint(row: dict[str, Any]) -> Fingerprint:
    listed = {cc.strip().upper() for cc in row["expected_countries"].split(",")}
    return Fingerprint(
        name=row["name"],
        location=row["location_found"],
        kind=row["pattern_type"],
        pattern=row["pattern"],
        countries=frozenset(listed & NETWORKS_PER_COUNTRY.keys()),
    )


def _can_confirm(fingerprint: Fingerprint) -> bool:
    """Tell whether the scorer sees the pattern: bodies are searched literally, headers whole or by prefix."""
    if fingerprint.location.startswith(_HEADER_PREFIX):
        return fingerprint.kind in ("full", "prefix")
    return fingerprint.kind != "regexp"
