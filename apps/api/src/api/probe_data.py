"""Data for single tests of probes: Tor targets, Psiphon's configuration, VPN providers."""

from flask import Blueprint, Response

from api.errors import ApiError
from api.responses import NO_CACHE
from api.services import services
from api.tokens import require_probe_token

blueprint = Blueprint("probe_data", __name__)


@blueprint.get("/api/v1/test-list/tor-targets")
def tor_targets() -> Response:
    """The Tor targets, for probes that logged in; their `country_code` makes no difference."""
    require_probe_token()
    return _untouched(services().probe_config.tor_targets())


@blueprint.get("/api/v1/test-list/psiphon-config")
def psiphon_config() -> Response:
    """Psiphon's configuration, for probes that logged in and were built without one."""
    require_probe_token()
    return _untouched(services().probe_config.psiphon_config())


@blueprint.get("/api/v2/ooniprobe/vpn-config/<provider>")
def vpn_config(provider: str) -> Response:  # noqa: ARG001 no provider has a configuration here
    """There are no VPN providers: probes skip their OpenVPN test, or measure the URLs of a check-in."""
    raise ApiError(404, "This server has no configuration for VPN providers. Run the test without one.")


def _untouched(content: bytes) -> Response:
    response = Response(content, mimetype="application/json")
    response.headers["Cache-Control"] = NO_CACHE
    return response
