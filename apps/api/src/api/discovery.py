"""Where probes find collectors and test helpers, for every generation of them."""

from typing import Any

from flask import Blueprint, Response

from api.errors import ApiError, bad_request
from api.json_fields import Fields, json_object
from api.responses import NO_CACHE, json_response
from api.services import services

MALFORMED = "Malformed request"

blueprint = Blueprint("discovery", __name__)


@blueprint.get("/api/v1/collectors")
def list_collectors() -> Response:
    """The collectors, for probes of the middle generation."""
    return json_response(services().probe_config.collectors(), cache="max-age=3600")


@blueprint.get("/api/v1/test-helpers")
def list_test_helpers() -> Response:
    """The test helpers. Every current probe starts with this route and goes on to another backend when it fails."""
    return json_response(services().probe_config.test_helpers(), cache="max-age=0")


@blueprint.post("/bouncer/net-tests")
def bouncer() -> Response:
    """Collectors and helpers for the oldest probes; only the first test that they name is looked at."""
    test = _first_test()
    answer = {
        **services().probe_config.bouncer(),
        "name": _echoed(test, "name"),
        "version": _echoed(test, "version"),
        "input-hashes": None,
    }
    return json_response({"net-tests": [answer]}, cache=NO_CACHE)


def _first_test() -> Fields:
    try:
        tests: Any = json_object().raw("net-tests")
    except ApiError as error:
        if error.status != 400:
            raise
        tests = None
    if not isinstance(tests, list) or not tests or not isinstance(tests[0], dict):
        raise bad_request(MALFORMED, hint="Parameter net-tests must be a list of objects with name and version.")
    return Fields(tests[0], "net-tests[0].")


def _echoed(test: Fields, name: str) -> str:
    value = test.text(name)
    if not value:
        raise bad_request(MALFORMED, hint=f"Parameter net-tests[0].{name} is missing.")
    return value
