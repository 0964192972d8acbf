"""What the promises of several roles are checked with."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from testinfra.host import Host

_CLIENT = """
import http.client, json, socket, ssl, sys
wanted = json.loads(sys.argv[1])
connection = http.client.HTTPConnection(wanted["address"], wanted["port"], timeout=30)
if wanted["tls"]:
    context = ssl._create_unverified_context()
    raw = socket.create_connection((wanted["address"], wanted["port"]), timeout=30)
    connection.sock = context.wrap_socket(raw, server_hostname=wanted["name"])
connection.putrequest(wanted["method"], wanted["path"], skip_host=True, skip_accept_encoding=True)
for name, value in {"Host": wanted["name"], **wanted["headers"]}.items():
    connection.putheader(name, value)
body = bytes(wanted["zeros"]) or wanted["body"].encode()
if body or wanted["method"] == "POST":
    connection.putheader("Content-Length", str(len(body)))
connection.endheaders()
try:
    connection.send(body)
except (BrokenPipeError, ConnectionResetError):
    pass  # refused before all of it was sent; the answer is there
reply = connection.getresponse()
text = reply.read().decode("utf-8", "replace")
print(json.dumps([reply.status, {name.lower(): value for name, value in reply.getheaders()}, text]))
"""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    text: str


@pytest.fixture(scope="session")
def fetch() -> Callable[..., Reply]:
    """Make an HTTP request on the host itself, with nothing but its Python: `fetch(host, path, name="api.example")`."""

    def _fetch(
        host: Host,
        path: str,
        *,
        name: str = "localhost",
        method: str = "GET",
        body: str = "",
        zeros: int = 0,
        headers: dict[str, str] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: bool = True,
    ) -> Reply:
        wanted = {
            "path": path,
            "name": name,
            "method": method,
            "body": body,
            "zeros": zeros,
            "headers": headers or {},
            "address": address,
            "port": port or (443 if tls else 80),
            "tls": tls,
        }
        command = f"python3 -c {shlex.quote(_CLIENT)} {shlex.quote(json.dumps(wanted))}"
        status, answered, text = json.loads(host.check_output(command))
        return Reply(status, answered, text)

    return _fetch
