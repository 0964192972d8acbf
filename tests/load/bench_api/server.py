"""The loaded database, and the real API in front of it."""

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from tests.load.bench_api.database import PREFIX
from tests.load.sample import checks, cluster, figures, loading
from tests.load.sample.draw import Sampler
from tests.load.sample.loading import Clock
from tests.load.stack import BIN, free_ports, wait_for

from api import APP
from core import schema
from devstack.postgres import PostgresCluster

DATABASE = "bench"
APPLICATION = APP
"""What the API's sessions are called in the server's log."""

_NOTE = "sample.json"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_CODE = Path(__file__).resolve().parents[1] / "sample"


def prepare(directory: Path, rows: int, seed: int, say: Callable[[str], None]) -> tuple[PostgresCluster, Sampler]:
    """Load the sample into `directory`, or take what is there when it is the same; the server is not running then."""
    note = directory / _NOTE
    known = json.loads(note.read_text()) if note.exists() else {}
    wanted = {"rows": rows, "seed": seed, "made_by": _checksum()}
    place = directory / "postgres"
    server = PostgresCluster(place, settings=settings())
    server.stop_leftover()
    if all(known.get(name) == value for name, value in wanted.items()):
        say(f"{place} has these {rows:,} rows already (up to {known['until']})")
        return server, Sampler(rows, seed, date.fromisoformat(known["until"]))
    note.unlink(missing_ok=True)
    until = datetime.now(UTC).date()
    sampler = Sampler(rows, seed, until)
    clock = Clock()
    cluster.load(place, DATABASE, sampler, say, clock)
    for name, seconds in clock.parts.items():
        say(f"  {name}: {seconds:.1f} s")
    say(f"loaded {rows:,} rows with indexes and counters in {clock.total:.1f} s: {rows / clock.total:,.0f} rows/s")
    with server:
        proof = checks.prove(server.dsn(DATABASE), sampler.months)
        for sentence in proof.wrong or [f"proved: {proof.counters:,} counters equal {proof.rows:,} rows"]:
            say(sentence)
        with loading.session(server.dsn(DATABASE)) as connection:
            for line in figures.table(connection):
                say(line)
    note.write_text(json.dumps(wanted | {"until": until.isoformat()}))
    return server, sampler


def settings() -> dict[str, str]:
    """Settings of the server that is measured: those of the role, and a log that can be taken apart."""
    return cluster.machine_settings() | {"log_line_prefix": PREFIX, "autovacuum": "on"}


@contextlib.contextmanager
def running_api(dsn: str) -> Iterator[int]:
    """The API as it is deployed, without quotas; gives its port."""
    with tempfile.TemporaryDirectory(prefix="bench-api-") as directory:
        port, metrics = free_ports(2)
        (Path(directory) / "state").mkdir(mode=0o700)
        environment = {
            **os.environ,
            "OONI_API_BIND": f"127.0.0.1:{port}",
            "OONI_API_BASE_URL": f"http://127.0.0.1:{port}",
            "OONI_API_DB_URI": dsn,
            "OONI_API_SPOOL_DIRECTORY": f"{directory}/spool",
            "OONI_API_STORE_URL": f"file://{directory}/objects",
            "OONI_API_STATE_DIRECTORY": f"{directory}/state",
            "OONI_API_PROBE_CONFIG_DIRECTORY": "",
            "OONI_API_METRICS_PORT": str(metrics),
            "OONI_API_QUOTAS_ENABLED": "false",
        }
        with (Path(directory) / "api.log").open("wb") as log:
            process = subprocess.Popen([BIN / "ooni-api"], env=environment, stdout=log, stderr=log)
            try:
                wait_for(f"http://127.0.0.1:{port}/health")
                yield port
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def forget_everything(server: PostgresCluster, drop_caches: bool) -> None:
    """Restart the server, and have the system forget its files in between when that is wanted."""
    server.stop()
    if drop_caches:
        _DROP_CACHES.write_text("3")
    server.start()


def can_drop_caches() -> bool:
    """Whether the system's cache of files can be emptied."""
    return os.access(_DROP_CACHES, os.W_OK)


def fetch(url: str) -> bytes:
    """Return a page. Raises OSError."""
    with urllib.request.urlopen(url, timeout=120) as reply:
        return bytes(reply.read())


def _checksum() -> str:
    """What a loaded sample depends on: migrations, and the code that draws."""
    digest = hashlib.sha256()
    for migration in schema.load_migrations():
        digest.update(migration.checksum.encode())
    for file in sorted(_CODE.glob("*.py")):
        if file.name not in ("__main__.py", "checks.py", "figures.py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
