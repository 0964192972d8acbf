"""Simulated probes against the stack, and what became of what they sent."""

import http.client
import json
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from stackhosts.podman import Host
from stackhosts.stage import Stage


@dataclass(frozen=True)
class Replay:
    """What simulated probes sent and were told."""

    documents: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Documents that were acknowledged with a uid."""
        return [document for document in self.documents if document["uid"]]


class Probes:
    """Probes that submit over HTTPS, verify the certificate, and try again when a host does not answer."""

    def __init__(self, stage: Stage, host: Host, options: str) -> None:
        """Start submitting to `host`; `options` are those of `probesim replay`."""
        command = stage.operator.replay_command(f"https://{host.fqdn}", stage.certificates(), options)
        self._process = subprocess.Popen(command, env=stage.operator.environ, stdout=subprocess.PIPE, text=True)

    def finish(self, timeout: float = 300) -> Replay:
        """Wait for the last answer."""
        try:
            out, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        events = [json.loads(line) for line in out.splitlines()]
        assert events, f"probesim ended with {self._process.returncode} and said nothing"
        assert events[-1]["event"] == "summary"
        return Replay(documents=events[:-1], summary=events[-1])


def get(stage: Stage, host: Host, path: str) -> tuple[int, bytes]:
    """GET a path over HTTPS from outside, with the certificate verified; return status and body."""
    context = ssl.create_default_context(cafile=str(stage.certificates()))
    connection = _ToAddress(host.fqdn, host.address, context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class _ToAddress(http.client.HTTPSConnection):
    """Connects to an address and verifies a name, since only the operator's commands resolve our names."""

    def __init__(self, name: str, address: str, context: ssl.SSLContext) -> None:
        super().__init__(name, timeout=30, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, 443), timeout=30)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def answers(stage: Stage, host: Host) -> bool:
    """Return whether a host's API says that it is up."""
    try:
        return get(stage, host, "/health") == (200, b"UP")
    except OSError:
        return False


def missing_rows(database: Host, uids: list[str], seconds: float = 60) -> set[str]:
    """Return the uids that have no row after at most `seconds`."""
    missing, deadline = set(uids), time.monotonic() + seconds
    while missing:
        quoted = ",".join(f"('{uid}')" for uid in sorted(missing))
        found = database.sql(
            f"SELECT uid FROM (VALUES {quoted}) AS sent(uid) JOIN fastpath ON measurement_uid = uid"
        ).splitlines()
        missing -= set(found)
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return missing
