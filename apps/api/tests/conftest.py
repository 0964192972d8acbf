"""A real API for the tests: gunicorn in a process of its own, a real database, a real spool."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from api.app import create_app
from api.config import ApiSettings
from core.spool import Spool

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3]))
from api_sample import load

RID = "20240101T000000Z_webconnectivity_IE_34245_n1_abcdefghijklmnop"


class ApiServer:
    """One `ooni-api` with its directories."""

    def __init__(self, directory: Path, dsn: str, **settings: object) -> None:
        self.directory = directory
        self.spool_dir = directory / "spool"
        self.port, self.metrics_port, self.fastpath_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.dsn = dsn
        self.log_path = directory / "api.log"
        self.settings: dict[str, object] = {
            "bind": f"127.0.0.1:{self.port}",
            "base_url": "https://api.example.org",
            "workers": 1,
            "threads": 8,
            "metrics_port": self.metrics_port,
            "db_uri": dsn,
            "spool_directory": self.spool_dir,
            "spool_min_free_bytes": 1024,
            "state_directory": directory / "state",
            "store_url": f"file://{directory}/objects",
            "fastpath_url": f"http://127.0.0.1:{self.fastpath_port}",
            "log_level": "DEBUG",
            **settings,
        }
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def spool(self) -> Spool:
        return Spool(self.spool_dir, min_free_bytes=0)

    def start(self) -> "ApiServer":
        (self.directory / "objects").mkdir(exist_ok=True, parents=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OONI_", "PROMETHEUS_"))}
        environment |= self.environment | {
            f"OONI_API_{key.upper()}": str(value) for key, value in self.settings.items()
        }
        command = [str(Path(sys.executable).parent / "ooni-api")]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.directory)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if self.http.get("/health").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the API did not come up:\n{self.log()}")

    def restart(self) -> "ApiServer":
        """Stop it and start it anew on the same directories."""
        assert self.stop() == 0, self.log()
        self.http = httpx.Client(base_url=self.url, timeout=30)
        return self.start()

    def stop(self) -> int:
        assert self.process is not None
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def submit(self, body: bytes, rid: str = RID, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"/report/{rid}", content=body, headers=named)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric, 0 when it is not there yet."""
        text = self.metrics_text()
        for line in text.splitlines():
            if line.startswith((name + " ", name + "{")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def metrics_text(self) -> str:
        """Return all metrics; their process may come up a little after the API."""
        deadline = time.monotonic() + 15
        while True:
            try:
                return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10).text
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def files(self) -> list[Path]:
        return sorted(path for path in self.spool_dir.rglob("*") if path.is_file())

    def raw(self, request: bytes, source: str = "127.0.0.1", *, half_close: bool = False) -> bytes:
        """Send bytes over a connection of their own and return everything that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0)) as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def module_app(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application without a server, with a spool and a database that one module shares."""
    directory = tmp_path_factory.mktemp("app")
    (directory / "objects").mkdir()
    app = create_app(
        ApiSettings(
            db_uri=module_dsn,
            spool_directory=str(directory / "spool"),
            spool_min_free_bytes=1024,
            state_directory=str(directory / "state"),
            store_url=f"file://{directory}/objects",
            fastpath_url="http://127.0.0.1:1",
            fastpath_timeout_s=0.5,
            statistics_kept_s=0,
        )
    )
    yield app
    app.extensions["api"].close()


@pytest.fixture(scope="module")
def smtp() -> Iterator[Any]:
    """A mail server."""
    from mail_server import MailServer

    server = MailServer().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def login_app(module_dsn: str, smtp: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application without a server, in which people log in by mail; sessions last 2 days, and 7 at most."""
    from mail_server import app_with_mail

    app = app_with_mail(tmp_path_factory.mktemp("login"), module_dsn, smtp)
    yield app
    app.extensions["api"].close()


@pytest.fixture(scope="module")
def lone_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application of https://api.example.org without a server and without a database."""
    directory = tmp_path_factory.mktemp("lone")
    app = create_app(
        ApiSettings(
            base_url="https://api.example.org",
            db_uri="host=/nonexistent dbname=ooni",
            spool_directory=str(directory / "spool"),
            state_directory=str(directory / "state"),
            store_url=f"file://{directory}",
        )
    )
    yield app
    app.extensions["api"].close()


@pytest.fixture(scope="module")
def start_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ApiServer]]:
    """Start an API with given settings; stopped at the end of the module."""
    running: list[ApiServer] = []

    def start(dsn: str, *, environment: dict[str, str] | None = None, **settings: object) -> ApiServer:
        server = ApiServer(tmp_path_factory.mktemp("api"), dsn, **settings)
        server.environment = environment or {}
        running.append(server)
        return server.start()

    yield start
    for server in running:
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0, server.log()


@pytest.fixture(scope="session")
def api_class() -> type[ApiServer]:
    """The class itself, for tests that start an API in another way."""
    return ApiServer


@pytest.fixture(scope="module")
def api(start_api: Callable[..., ApiServer], module_dsn: str) -> ApiServer:
    """The API of this module."""
    return start_api(module_dsn)


@pytest.fixture(scope="module")
def sampled_api(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[ApiServer]:
    """An API of this module with the sample of `api_sample`, whose links lead to itself."""
    from list_maintainers import HEADER, Maintainers

    directory = tmp_path_factory.mktemp("sampled")
    server = ApiServer(directory, module_dsn)
    server.settings["base_url"] = server.url
    maintainers = Maintainers(directory)
    maintainers.write("global", HEADER)  # the examples add what would be in it
    server.settings["test_lists_repository"] = maintainers.origin
    server.settings |= {"login_redirect_hosts": "explorer.example.org", "mail_transport": "log"}
    load(module_dsn, server.spool)
    yield server.start()
    assert server.stop() == 0, server.log()


def write_mmdb(path: Path, networks: dict[str, object], *, ip_version: int = 6, rested_s: float = 3600) -> Path:
    """Write a geolocation database in MaxMind's format that appears to have rested for a while."""
    writer = MMDBWriter(ip_version, "Test", languages=["en"], description="Test", ipv4_compatible=ip_version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    draft = path.with_name(f".{path.name}.tmp")
    writer.to_db_file(str(draft))
    rested_since = time.time() - rested_s
    os.utime(draft, (rested_since, rested_since))
    return draft.rename(path)


@pytest.fixture(scope="session")
def make_mmdb() -> Callable[..., Path]:
    """Return `write_mmdb`."""
    return write_mmdb


@pytest.fixture(scope="session")
def rid() -> str:
    """A valid report id."""
    return RID
