"""The metrics endpoint in real processes."""

import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.parser import text_string_to_metric_families

from core import metrics
from core.metrics import MetricsUnavailable, render, serve


def _samples(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_metrics_are_served_over_http_and_the_port_is_freed() -> None:
    counter = Counter("core_test_events", "Events of this test.")
    server = serve(0)
    try:
        counter.inc(3)
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as reply:
            assert reply.status == 200
            assert reply.headers["Content-Type"].startswith("text/plain")
            assert _samples(reply.read().decode())["core_test_events_total"] == 3
    finally:
        server.close()
        REGISTRY.unregister(counter)
    serve(server.port).close()


def test_a_taken_port_is_a_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(MetricsUnavailable, match=f"metrics port 127.0.0.1:{port} is taken .* Set another"):
            serve(port)


def test_an_address_that_is_not_ours_is_a_sentence() -> None:
    with pytest.raises(MetricsUnavailable, match=r"192\.0\.2\.1:9999: .*\."):
        serve(9999, "192.0.2.1")


def test_render_gives_text_and_its_type() -> None:
    text, kind = render()
    assert b"# TYPE" in text
    assert kind.startswith("text/plain")


WORKER = """
import os, sys
from prometheus_client import Counter, Gauge
events = Counter("events", "Events.")
busy = Gauge("busy", "Busy workers.", multiprocess_mode="livesum")
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        events.inc(number + 1)
        busy.set(1)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
from core import metrics
if sys.argv[1] == "forget":
    metrics.forget(pids[0])
server = metrics.serve(0)
from urllib.request import urlopen
print(urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10).read().decode())
server.close()
"""


@pytest.mark.parametrize(("mode", "busy"), [("keep", 3), ("forget", 2)])
def test_several_processes_are_added_up(tmp_path: Path, mode: str, busy: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, mode],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={metrics.MULTIPROC_VARIABLE: str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    samples = _samples(done.stdout)
    assert samples["events_total"] == 6
    assert samples["busy"] == busy


def test_a_missing_directory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.MULTIPROC_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(MetricsUnavailable, match="Create it"):
        serve(0)
