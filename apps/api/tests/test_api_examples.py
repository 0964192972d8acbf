"""Every example of the description, tried as a client would: it is answered as it says there.

The API runs with a sample in which the examples are true (`api_sample`). The very lines for a shell that the page shows
are run.
"""

import json
import re
import shutil
import subprocess
from email.parser import BytesHeaderParser
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from people import login_token, signed_in_headers
from quota_client import ask, leave

from api.openapi import accounts, caching, samples
from api.openapi.document import OPERATIONS, document
from api.openapi.model import JSON, Operation, Parameter
from api.quotas import subjects_of

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine: apt-get install curl")

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
RANDOM = {"/api/v1/test-helpers"}
"""Routes whose replies are in another order each time."""

ANOTHER_ENTRY = {
    "category_code": "NEWS",
    "date_added": "2024-01-31",
    "notes": "",
    "source": "volunteer",
    "url": "https://another.example.net/",
}
"""What is proposed for the lists already, when the examples are tried."""

WHOLE = document("https://api.example.org")
GETS = [operation for operation in OPERATIONS if operation.method == "get"]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media(self) -> str:
        return self.headers["content-type"].partition(";")[0]


class Shell:
    """Runs command lines as they stand; curl is told by its own configuration to keep what it receives."""

    def __init__(self, directory: Path, token: str) -> None:
        self.token = token
        self._body, self._headers = directory / "body", directory / "headers"
        (directory / ".curlrc").write_text(f'output = "{self._body}"\ndump-header = "{self._headers}"\n')
        self._environment = {"CURL_HOME": str(directory), "PATH": "/usr/local/bin:/usr/bin:/bin", "TOKEN": token}

    def run(self, line: str, *more: str) -> Answer:
        command = " ".join([line, *more])
        done = subprocess.run(
            ["bash", "-c", command], env=self._environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr.decode(errors='replace')}"
        status, _, rest = self._headers.read_bytes().partition(b"\r\n")
        headers = {name.lower(): value for name, value in BytesHeaderParser().parsebytes(rest).items()}
        return Answer(int(status.split()[1]), headers, self._body.read_bytes() if self._body.exists() else b"")


def name(operation: Operation) -> str:
    return f"{operation.method.upper()} {operation.path}"


def described(operation: Operation, status: int) -> dict[str, Any]:
    found: dict[str, Any] = WHOLE["paths"][operation.path][operation.method]["responses"][str(status)]
    return found


def usual_status(operation: Operation) -> int:
    """What an operation answers to its sample request: its first reply; those without one say that there is nothing."""
    if operation.replies:
        return min(operation.replies)
    assert 404 in operation.errors
    return 404


def validate(schema: dict[str, Any], value: Any) -> None:
    validator = Draft202012Validator({**schema, "components": WHOLE["components"]})
    error = best_match(validator.iter_errors(value))
    assert error is None, f"{error.json_path}: {error.message}"


def check_shape(example: Any, reply: Any, where: str) -> None:
    """What the example has, the reply has: the same keys and kinds of values, and something in each list."""
    if example is None or reply is None:
        return  # the schema says where null may be
    if isinstance(example, dict):
        assert isinstance(reply, dict), where
        for key, value in example.items():
            if not _IDENTIFIER.fullmatch(key):  # of a thing, such as an address: others are configured here
                assert reply, f"{where} is empty in the reply and not in the example"
                check_shape(value, next(iter(reply.values())), f"{where}.{key}")
                continue
            assert key in reply, f"{where}: the example has {key}, the reply only {sorted(reply)}"
            check_shape(value, reply[key], f"{where}.{key}")
    elif isinstance(example, list):
        assert isinstance(reply, list), where
        if example:
            assert any(is_shaped(example[0], item) for item in reply), f"{where}: nothing is like {example[0]}"
    elif isinstance(example, int | float) and not isinstance(example, bool):
        assert isinstance(reply, int | float), where
        assert not isinstance(reply, bool), where
    else:
        assert type(reply) is type(example), where


def is_shaped(example: Any, reply: Any) -> bool:
    """Return whether `check_shape` finds nothing."""
    try:
        check_shape(example, reply, "")
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="module")
def client_id(sampled_api: Any) -> str:
    return str(sampled_api.http.post("/api/v1/register", json={}).json()["client_id"])


@pytest.fixture(scope="module")
def shell(sampled_api: Any, client_id: str, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    reply = sampled_api.http.post("/api/v1/login", json={"username": client_id, "password": "x"})
    return Shell(tmp_path_factory.mktemp("shell"), reply.json()["token"])


@pytest.fixture(scope="module")
def session(sampled_api: Any, module_dsn: str) -> str:
    """The token of an admin's session, with a token and a change of a list; the account in the examples is another."""
    signed_in_headers(sampled_api, module_dsn, "user", accounts.EMAIL)
    admin = signed_in_headers(sampled_api, module_dsn, "admin", "admin@example.org")
    made = sampled_api.http.post("/api/v1/access_tokens", json={"name": "thesis"}, headers=admin)
    assert made.json()["token_id"] == 1
    ask(sampled_api, "192.0.2.1")
    leave(sampled_api, subjects_of(ip_address("192.0.2.1"))[0], 100)
    change = {"country_code": "it", "comment": "", "old_entry": {}, "new_entry": ANOTHER_ENTRY}
    assert sampled_api.http.post("/api/v1/url-submission/update-url", json=change, headers=admin).status_code == 200
    return admin["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def line(sampled_api: Any, client_id: str, session: str, operation: Operation) -> str:
    """The line that the page shows, with tokens and ids of ours in place of those that are made up."""
    return _line(sampled_api, client_id, operation).replace("$TOKEN", session if operation.account else "$TOKEN")


def _line(sampled_api: Any, client_id: str, operation: Operation) -> str:
    (shown,) = document(sampled_api.url)["paths"][operation.path][operation.method]["x-codeSamples"]
    if operation.path == "/api/v1/login":
        assert operation.body is not None
        return str(shown["source"]).replace(operation.body.example["username"], client_id)  # type: ignore[index]
    if operation.path == "/api/v1/update/{client_id}":
        return str(shown["source"]).replace(str(operation.parameters[0].example), client_id)
    if operation.tag == accounts.TAG:
        return str(shown["source"]).replace(accounts.LINK_TOKEN, login_token(sampled_api))
    return str(shown["source"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
def test_a_sample_is_answered_as_described(shell: Shell, operation: Operation, line: str) -> None:
    answer = shell.run(line)
    assert answer.status == usual_status(operation), answer.body[:500]
    reply = described(operation, answer.status)
    for header in reply.get("headers", {}):
        if header != "X-RateLimit-Remaining":  # addresses of this machine have no quota
            assert header.lower() in answer.headers, f"{header} is described and not sent"
    if "content" not in reply:
        return
    assert answer.media in reply["content"]
    content = reply["content"][answer.media]
    if answer.media == JSON:
        validate(content["schema"], json.loads(answer.body))
        if answer.status < 400:
            check_shape(content["example"], json.loads(answer.body), "reply")


@pytest.mark.parametrize("operation", [each for each in GETS if 200 in each.replies], ids=name)
def test_a_reply_may_be_kept_as_long_as_described(shell: Shell, operation: Operation, line: str) -> None:
    answer = shell.run(line)
    assert answer.headers.get("cache-control") == caching.usual(operation)
    assert ("etag" in answer.headers) == caching.tagged(operation)


@pytest.mark.parametrize(
    "operation", [each for each in GETS if caching.tagged(each) and each.path not in RANDOM], ids=name
)
def test_the_same_again_is_not_sent_again(shell: Shell, operation: Operation, line: str) -> None:
    tag = shell.run(line).headers["etag"]
    again = shell.run(line, "-H", f"'If-None-Match: {tag}'")
    assert again.status == 304
    assert again.headers["etag"] == tag


PARAMETERS = [
    pytest.param(operation, parameter, id=f"{operation.path} {parameter.name}")
    for operation in GETS
    for parameter in operation.parameters
    if parameter.where == "query" and parameter.example is not None and operation.replies
]


@pytest.mark.parametrize(("operation", "parameter"), PARAMETERS)
def test_an_example_of_a_parameter_is_accepted(
    sampled_api: Any, shell: Shell, session: str, operation: Operation, parameter: Parameter
) -> None:
    """Beside those of the sample request, which may leave nothing to be found."""
    query = {**samples.query(operation), parameter.name: str(parameter.example)}
    if parameter.example == accounts.LINK_TOKEN:
        query[parameter.name] = login_token(sampled_api)
    token = session if operation.account else shell.token
    headers = {"Authorization": f"Bearer {token}"} if operation.token or operation.account else {}
    url = samples.address(sampled_api.url, operation).partition("?")[0]
    response = sampled_api.http.get(url, params=query, headers=headers)
    assert response.status_code == usual_status(operation), response.text[:500]
    content = described(operation, response.status_code)["content"]
    media = response.headers["content-type"].partition(";")[0]
    assert media in content
    if media == JSON:
        assert "error" not in response.json()
        validate(content[media]["schema"], response.json())


def test_every_sample_is_of_a_route_and_uses_its_parameters() -> None:
    by_path = {operation.path: operation for operation in OPERATIONS}
    for path, query in samples.QUERIES.items():
        assert set(query) <= {parameter.name for parameter in by_path[path].parameters if parameter.where == "query"}
    assert set(caching.CACHE_CONTROL) <= {operation.path for operation in GETS}


def test_an_example_that_is_not_so_is_noticed() -> None:
    check_shape({"a": [{"b": 1}], "c": None}, {"a": [{"b": 2.5}, {}], "c": "x", "d": 1}, "reply")
    for example, reply in [({"a": 1}, {}), ({"a": [1]}, {"a": []}), ("x", 1), (1, True), ({"a": {}}, {"a": "x"})]:
        with pytest.raises(AssertionError):
            check_shape(example, reply, "reply")
