"""The instance that is tested: one that is deployed, or a stack of our own."""

import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack.running import running_stack

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from service_client import Server, post


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The deployment named by ACCEPTANCE_URL, or a stack of our own."""
    url, ca = os.environ.get("ACCEPTANCE_URL", "").rstrip("/"), os.environ.get("ACCEPTANCE_CA", "")
    if url:
        with _client(url, ca) as http:
            yield Server(http, url, ca, None)
        return
    directory = tmp_path_factory.mktemp("acceptance")
    with running_stack(directory, COUNT="0", SESSIONS="0", TRICKLE="0") as stack, _client(stack.url, "") as http:
        yield Server(http, stack.url, "", stack.run_dir, stack.dsn)


def _client(url: str, ca: str) -> httpx.Client:
    context = ssl.create_default_context(cafile=ca or None)
    return httpx.Client(base_url=url, verify=context, timeout=60, trust_env=False)


@pytest.fixture
def http(server: Server) -> httpx.Client:
    """A client of the server, which follows no redirects."""
    return server.http


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    """The token of a probe that has registered and logged in."""
    client_id = post(server.http, "/api/v1/register", {"password": "x" * 64, "platform": "linux"}).json()["client_id"]
    return str(post(server.http, "/api/v1/login", {"username": client_id, "password": "x" * 64}).json()["token"])
