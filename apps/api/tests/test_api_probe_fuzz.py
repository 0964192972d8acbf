"""Whatever is sent to the small routes of probes: an answer in JSON, and never a fault of ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROUTES = [
    ("POST", "/api/v1/register"),
    ("POST", "/api/v1/login"),
    ("PUT", "/api/v1/update/some-id"),
    ("POST", "/api/v1/geolookup"),
]
NAMES = [
    "username", "password", "addresses", "supported_tests", "probe_cc", "probe_asn", "platform", "token", "language",
]  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=40)
    | st.sampled_from(["", "192.0.2.1", "::1", "a.b.c", "AS1", "\ud800", "\x00", "x" * 3000, "e30.e30.e30"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
)
objects = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), values, max_size=6)
headers = st.dictionaries(
    st.sampled_from(["X-Real-IP", "X-Forwarded-For", "Authorization", "Content-Encoding", "Content-Type"]),
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
)
with_function_fixtures = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, make_mmdb: Callable[..., Path]) -> Any:
    """An API that knows some places."""
    record = {"country": {"iso_code": "IE"}, "autonomous_system_number": 1}
    both = make_mmdb(tmp_path_factory.mktemp("geo") / "both.mmdb", {"192.0.2.0/24": record})
    return start_api("host=/nonexistent", geo_country_db=both, geo_asn_db=both)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@with_function_fixtures
@given(body=objects)
def test_any_json(api: Any, method: str, path: str, body: dict[str, object]) -> None:
    sent = json.dumps(body).encode()
    response = api.http.request(method, path, content=sent, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400, 401}, response.text
    assert isinstance(response.json(), dict)
    assert (response.status_code == 200) == ("error" not in response.json())


@pytest.mark.parametrize(("method", "path"), ROUTES)
@with_function_fixtures
@given(body=st.binary(max_size=200), more=headers)
def test_any_bytes_and_headers(api: Any, method: str, path: str, body: bytes, more: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in more.items()}
    response = api.http.request(method, path, content=body, headers=sent)
    assert 200 <= response.status_code < 500, response.text
    assert isinstance(response.json(), dict)


@with_function_fixtures
@given(more=headers)
def test_any_address_in_front_of_a_submission(api: Any, rid: str, more: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in more.items() if name.startswith("X-")}
    response = api.http.post(f"/report/{rid}", content=b"{}", headers=sent)
    assert response.status_code == 200, response.text
