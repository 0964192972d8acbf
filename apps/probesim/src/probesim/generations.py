"""What a probe of each generation says to the API in one session, call by call (the wire contract, 2.15)."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from probesim.client import encode_json
from probesim.rules import Acknowledgement, Bounced, Broken, Helper, Listing, TorTarget, UrlList, decode, demand
from probesim.sample import IDENTITY, ZSTD
from probesim.session import Session

VISITS = 3
"""Websites that a session visits: few, so that sessions are short."""

_WEBSITES = "web_connectivity"
_ASKED_CATEGORY = "NEWS"
_AFTER_LOGIN = frozenset({"tor", "psiphon", "openvpn"})
_OKHTTP = "okhttp/3.12.1"
_ANYTHING = dict[str, Any]

CLI_TESTS = (
    "facebook_messenger", "signal", "telegram", "whatsapp", "http_header_field_manipulation",
    "http_invalid_request_line", "ndt", "dash", "tor", "vanilla_tor", "torsf", "psiphon", "riseupvpn", "openvpn",
    "stunreachability", "browser_web", "dnscheck", "urlgetter", "echcheck",
)  # fmt: skip
MOBILE_TESTS = (
    "facebook_messenger", "signal", "telegram", "whatsapp", "http_header_field_manipulation",
    "http_invalid_request_line", "ndt", "dash", "tor", "vanilla_tor", "torsf", "psiphon", "stunreachability",
)  # fmt: skip
LEGACY_TESTS = (
    "http_requests", "dns_consistency", "tcp_connect", "meek_fronted_requests_test", "vanilla_tor", "ndt", "dash",
    "http_header_field_manipulation", "http_invalid_request_line", "telegram", "facebook_messenger", "whatsapp",
)  # fmt: skip
"""Tests of a session beside web_connectivity, in their order."""


async def cli(session: Session) -> None:
    """Play `ooniprobe`: helpers, check-in, a test after the other, each measurement submitted without a report."""
    if await session.attempt("test-helpers", session.test_helpers()) is None:
        return
    manual = session.rng.random() < 0.5
    categories = [_ASKED_CATEGORY] if manual and session.rng.random() < 0.5 else []
    asked = session.check_in(
        charging=True, on_wifi=True, run_type="manual" if manual else "timed", categories=categories
    )
    found = await session.attempt("check-in", asked)
    features: dict[str, bool] = {}
    if found is not None and found.tests.web_connectivity is not None:
        features = found.conf.features
        await _cli_test(session, _WEBSITES, session.visits(found.tests.web_connectivity.urls, VISITS))
    token = ""
    for test_name in CLI_TESTS:
        if not session.enabled(features, test_name):
            continue
        if test_name in _AFTER_LOGIN and not token:
            logged_in = await session.log_in()
            if logged_in is None:
                continue
            token = logged_in[1]
        if test_name == "tor" and await session.attempt("tor-targets", _tor_targets(session, token)) is None:
            continue
        if test_name == "psiphon" and await session.attempt("psiphon-config", _psiphon_config(session, token)) is None:
            continue
        if test_name == "openvpn":  # asked without the token
            await session.attempt("vpn-config", _vpn_config(session))
        await _cli_test(session, test_name)


async def mobile(session: Session) -> None:
    """Play the library of the apps: helpers, check-in, then a report per test and every measurement through it."""
    if await session.attempt("test-helpers", session.test_helpers()) is None:
        return
    asked = session.check_in(charging=False, on_wifi=False, run_type="timed", categories=())
    found = await session.attempt("check-in", asked)
    features: dict[str, bool] = {}
    if found is not None and found.tests.web_connectivity is not None:
        features = found.conf.features
        await _report(session, _WEBSITES, session.visits(found.tests.web_connectivity.urls, VISITS))
    for test_name in MOBILE_TESTS:
        if not session.enabled(features, test_name):
            continue
        if test_name == "tor":
            logged_in = await session.log_in()
            if logged_in is None:
                continue
            if await session.attempt("tor-targets", _tor_targets(session, logged_in[1])) is None:
                continue
        await _report(session, test_name)


async def legacy(session: Session) -> None:
    """Play an old probe: bouncer or collectors, URL list, a device that registers, reports that are closed."""
    discover = session.rng.choice((_bouncer, _collectors))
    if await session.attempt(discover.__name__.strip("_"), discover(session)) is None:
        return
    listed = await session.attempt("test-list-urls", _url_list(session))
    logged_in = await session.log_in()
    if logged_in is not None:
        await session.attempt("update", _update(session, *logged_in))
    json_type = session.rng.random() < 0.5
    runs = [(test_name, list[str]()) for test_name in LEGACY_TESTS]
    if listed is not None:
        runs.insert(0, (_WEBSITES, session.visits(listed.results, VISITS)))
    report_id = None
    for index, (test_name, inputs) in enumerate(runs):
        # The oldest of these probes wrote YAML; every fourth run of a test stands for them.
        report_id = await _report(session, test_name, inputs, as_yaml=index % 4 == 1, json_type=json_type, close=True)
    if report_id is not None:
        await session.attempt("okhttp-poll", _okhttp_poll(session, report_id))


PLAYS: dict[str, Callable[[Session], Awaitable[None]]] = {"cli": cli, "mobile": mobile, "legacy": legacy}
"""How each generation of `probesim.vocabulary.GENERATIONS` plays a session."""


async def _cli_test(session: Session, test_name: str, inputs: list[str] | None = None) -> None:
    """Run one test and submit its measurements as the CLI does."""
    await session.attempt("manifest", _manifest(session))
    for written in session.measure(test_name, inputs or ()):
        content = encode_json(written.measurement).decode()
        request = {
            "format": "json",
            "content": content,
            **dict.fromkeys(("nym", "zkp_request", "manifest_version", "protocol_version")),
        }
        answer = session.client.post("submit-measurement", "/api/v1/submit_measurement", request, Acknowledgement)
        await session.acknowledged("submit-measurement", written, answer, len(content), "", "")


async def _report(
    session: Session,
    test_name: str,
    inputs: list[str] | None = None,
    *,
    as_yaml: bool = False,
    json_type: bool = True,
    close: bool = False,
) -> str | None:
    """Run one test and submit its measurements through a report; without a report nothing is measured."""
    documents = session.measure(test_name, inputs or ())
    report_id = await session.attempt("open-report", session.open_report(documents[0].measurement, json_type=json_type))
    if report_id is None:
        return None
    for written in documents:
        compressed = not close and session.rng.random() < 0.3
        await session.submit_to_report(
            report_id, written, encoding=ZSTD if compressed else IDENTITY, as_yaml=as_yaml, json_type=json_type
        )
    if close:
        await session.attempt("close-report", _close(session, report_id))
    return report_id


async def _manifest(session: Session) -> None:
    """Ask whether credentials are in use, which must be denied by a server that verifies none."""
    answered = await session.client.send("manifest", "GET", "/api/v1/manifest")
    demand(answered.status == 404, "manifest-is-404", f"status {answered.status}")


async def _tor_targets(session: Session, token: str) -> dict[str, TorTarget]:
    path = f"/api/v1/test-list/tor-targets?country_code={session.probe.network.cc}"
    targets = await session.client.get("tor-targets", path, dict[str, TorTarget], token=token)
    complete = all(target.address and target.protocol for target in targets.values())
    demand(bool(targets) and complete, "tor-targets", f"{len(targets)} targets")
    return targets


async def _psiphon_config(session: Session, token: str) -> dict[str, Any]:
    return await session.client.get("psiphon-config", "/api/v1/test-list/psiphon-config", _ANYTHING, token=token)


async def _vpn_config(session: Session) -> None:
    """Ask for the configuration of a VPN provider, without a token; a server that has none may say so."""
    path = f"/api/v2/ooniprobe/vpn-config/riseupvpn?country_code={session.probe.network.cc}"
    answered = await session.client.send("vpn-config", "GET", path)
    if answered.status != 404:
        demand(answered.status == 200, "status-200", f"{answered.status}, where 404 is tolerated")
        decode(answered.body, _ANYTHING)


async def _bouncer(session: Session) -> Bounced:
    asked = [{"name": _WEBSITES, "version": "0.0.1", "input-hashes": None, "test-helpers": ["web-connectivity"]}]
    found = await session.client.post("bouncer", "/bouncer/net-tests", {"net-tests": asked}, Bounced)
    first = next(iter(found.net_tests), None)
    demand(first is not None and bool(first.collector), "collector", f"net-tests: {first}")
    assert first is not None
    demand(bool(first.collector_alternate), "collector", "collector-alternate is empty")
    demand(bool(first.test_helpers_alternate), "helper-web-connectivity", "test-helpers-alternate is empty")
    return found


async def _collectors(session: Session) -> list[Helper]:
    found = await session.client.get("collectors", "/api/v1/collectors", list[Helper])
    usable = [collector for collector in found if collector.address and collector.type]
    demand(any(collector.type == "https" for collector in usable), "collector", f"{len(found)} without an https one")
    return found


async def _url_list(session: Session) -> UrlList:
    path = f"/api/v1/test-list/urls?country_code={session.probe.network.cc}&limit=100"
    found = await session.client.get("test-list-urls", path, UrlList)
    demand(bool(found.results), "urls-not-empty", "results is empty")
    return found


async def _update(session: Session, client_id: str, token: str) -> dict[str, Any]:
    network = session.probe.network
    asked = {"probe_cc": network.cc, "probe_asn": f"AS{network.asn}", "language": "en", "token": "device-token"}
    path = f"/api/v1/update/{quote(client_id, safe='')}"
    return await session.client.post("update", path, asked, _ANYTHING, method="PUT", token=token)


async def _close(session: Session, report_id: str) -> None:
    try:
        await session.client.post_bytes("close-report", f"/report/{report_id}/close", b"", _ANYTHING)
    except Broken as broken:
        raise Broken("closed" if broken.rule in ("shape", "not-null", "json") else broken.rule, broken.detail) from None


async def _okhttp_poll(session: Session, report_id: str) -> None:
    """Ask whether a report has arrived, as some old Android apps do; the answer is always the same."""
    path = f"/api/v1/measurements?report_id={report_id}"
    found = await session.client.get("okhttp-poll", path, Listing, user_agent=_OKHTTP)
    urls = [row.measurement_url for row in found.results]
    demand(urls == [""], "dummy-list", f"measurement_url: {urls[:3]}")
