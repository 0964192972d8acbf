"""A real S3 server on loopback, for tests and trials: versitygw where `tools/setup-s3` built it, else nanio.

Both check signatures. versitygw also checks the checksums that requests carry, and keeps each object as a plain file.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from devstack.errors import StackError
from devstack.ports import HOST, free_ports

Server = Literal["versitygw", "nanio"]
SERVERS: tuple[Server, ...] = ("versitygw", "nanio")
"""Best first."""

BUCKET = "measurements"
CREDENTIALS = {
    "region": "us-east-1",
    "access_key_id": "TESTACCESSKEY1234567",
    "secret_access_key": "testsecretkey12345678901234567890",
}
"""Of these servers alone; they hold what a test put there."""

_START_S = 20.0


def program(server: Server) -> Path | None:
    """Where a server's program is, None when it is not on this machine."""
    beside = Path(sys.executable).parent / server
    if beside.exists():
        return beside
    found = shutil.which(server)
    return Path(found) if found else None


def best() -> Server | None:
    """The best server that this machine has."""
    return next((server for server in SERVERS if program(server)), None)


class S3Server:
    """One server on one directory, with an empty bucket named BUCKET, while it is entered."""

    def __init__(self, server: Server, directory: Path, *, port: int = 0) -> None:
        """Keep objects below `directory`; `port` 0 takes a free one."""
        self.server = server
        self.directory = directory
        self.port = port or free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return HOST, self.port

    @property
    def endpoint(self) -> str:
        """The address to give to a client."""
        return f"http://{HOST}:{self.port}"

    def path(self, key: str) -> Path:
        """The file that holds an object, for tests that damage it."""
        return self.directory / BUCKET / key

    def start(self) -> None:
        """Start the server; raises StackError when it does not come up."""
        found = program(self.server)
        if found is None:
            raise StackError(f"{self.server} is not on this machine. Run tools/setup-s3 or pip install nanio.")
        (self.directory / BUCKET).mkdir(parents=True, exist_ok=True)
        log_file = self.directory.with_name(f"{self.directory.name}.log")
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 a program of this installation
                [found, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment()},
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(self.address) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        raise StackError(f"{self.server} did not start; see {log_file}.")

    def stop(self) -> None:
        """End it at once, as a machine that loses power would; objects stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _arguments(self) -> list[str | Path]:
        if self.server == "nanio":
            return ["serve", "--data-dir", self.directory, "--host", HOST, "--port", str(self.port), "--no-access-log"]
        metadata: list[str | Path] = []
        if not _has_attributes(self.directory):
            sidecar = self.directory.with_name(f"{self.directory.name}.metadata")
            sidecar.mkdir(exist_ok=True)
            metadata = ["--sidecar", sidecar]
        return ["--port", f"{HOST}:{self.port}", "--quiet", "posix", *metadata, self.directory]

    def _environment(self) -> dict[str, str]:
        key, secret = CREDENTIALS["access_key_id"], CREDENTIALS["secret_access_key"]
        if self.server == "nanio":
            return {"NANIO_ACCESS_KEY": key, "NANIO_SECRET_KEY": secret}
        return {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret, "VGW_REGION": CREDENTIALS["region"]}


def _has_attributes(directory: Path) -> bool:
    """Whether files there can carry extended attributes, where versitygw keeps what it knows of an object."""
    try:
        os.setxattr(directory, "user.probe", b"1")
    except OSError:
        return False
    os.removexattr(directory, "user.probe")
    return True
