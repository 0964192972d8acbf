"""Measurements of websites (web_connectivity): reachable ones, and each way in which a network can stand in between."""

import base64
import random
from collections.abc import Callable

from probesim.blockpages import Demonstration, block_page
from probesim.finding import Finding
from probesim.site import Site
from probesim.vocabulary import Probe, page

TEST_NAME = "web_connectivity"


def accessible(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The site answers as it answers the test helper."""
    site = Site(rng, probe)
    site.served(site.page)
    return site.finding(accessible=True, blocking=False)


def accessible_compressed_body(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The site answers with a body that is no text, so the document carries it in base64."""
    site = Site(rng, probe)
    raw = bytes(rng.randrange(256) for _ in range(rng.randrange(600, 4000)))
    site.served({"format": "base64", "data": base64.b64encode(raw).decode("ascii")})
    return site.finding(accessible=True, blocking=False, title_match=None)


def site_down(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """Neither the probe nor the helper can reach the site: nothing is said about blocking."""
    site = Site(rng, probe)
    site.connected("connection_refused")
    site.control_failure = "connection_refused"
    return site.finding(accessible=None, blocking=None, experiment_failure="connection_refused")


def control_unreachable(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The helper itself did not answer, in the words of an error that the engine has no name for."""
    site = Site(rng, probe)
    site.connected("generic_timeout_error")
    keys = site.finding(accessible=None, blocking=None, experiment_failure="generic_timeout_error")
    keys.test_keys["control_failure"] = "unknown_failure: helper went away"
    keys.test_keys["control"] = {}
    return keys


def dns_injected(rng: random.Random, probe: Probe, shown: Demonstration) -> Finding:
    """The resolver answers with the address of a known block page."""
    site = Site(rng, probe)
    site.resolved(shown.draw_dns(rng, probe.network.cc).pattern)
    site.connected("generic_timeout_error")
    return site.finding(
        accessible=False,
        blocking="dns",
        experiment_failure="generic_timeout_error",
        dns_consistency="inconsistent",
    )


def dns_bogus(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The resolver answers with an address that no list knows."""
    site = Site(rng, probe)
    site.resolved("192.0.2.1")
    site.connected("connection_refused")
    return site.finding(
        accessible=False, blocking="dns", experiment_failure="connection_refused", dns_consistency="inconsistent"
    )


def dns_nxdomain(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The resolver claims that the name does not exist."""
    site = Site(rng, probe)
    site.not_resolved("dns_nxdomain_error")
    return site.finding(
        accessible=False, blocking="dns", experiment_failure="dns_nxdomain_error", dns_consistency="inconsistent"
    )


def tcp_blocked(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """Connections to the right address time out."""
    site = Site(rng, probe)
    site.connected("generic_timeout_error")
    return site.finding(accessible=False, blocking="tcp_ip", experiment_failure="generic_timeout_error")


def tls_reset(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """The connection is reset once the server name has been sent."""
    site = Site(rng, probe)
    site.requested("connection_reset")
    return site.finding(accessible=False, blocking="http-failure", experiment_failure="connection_reset")


def http_different(rng: random.Random, probe: Probe, _: Demonstration) -> Finding:
    """Another page than the helper sees, which no list knows (a login page, or a new block page)."""
    site = Site(rng, probe)
    site.served(page(rng, "Sign in to continue", 900), code=200)
    return site.finding(accessible=False, blocking="http-diff", title_match=False)


def block_page_served(rng: random.Random, probe: Probe, shown: Demonstration) -> Finding:
    """A known block page instead of the site."""
    site = Site(rng, probe)
    found = block_page(rng, shown.draw_http(rng, probe.network.cc))
    site.served_block_page(found)
    return site.finding(accessible=False, blocking="http-diff", title_match=False)


Builder = Callable[[random.Random, Probe, Demonstration], Finding]

SCENARIOS: dict[str, tuple[int, Builder]] = {
    "accessible": (60, accessible),
    "accessible_binary_body": (4, accessible_compressed_body),
    "site_down": (4, site_down),
    "control_unreachable": (2, control_unreachable),
    "dns_injected": (7, dns_injected),
    "dns_bogus": (3, dns_bogus),
    "dns_nxdomain": (3, dns_nxdomain),
    "tcp_blocked": (4, tcp_blocked),
    "tls_reset": (5, tls_reset),
    "http_different": (2, http_different),
    "block_page": (6, block_page_served),
}
"""Weight and builder of each scenario."""
