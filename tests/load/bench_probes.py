"""Probe services under load, as probes meet them: gunicorn behind nginx, `python -m tests.load.bench_probes`.

Submissions and check-ins with 1, 10 and 64 clients, and both at fixed rates. Latencies come twice: as the client sees
them, and from the API's own histogram of request times, in which the client's share of the cores does not count. Bodies
are made beforehand. nginx has the configuration that the roles deploy; without nginx on the machine the API is asked
directly, which the first line says. `--seconds N` is the length of each step; `--rate N --sustained N` hold a rate of
submissions. Prints figures and exits 0 whatever they are.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

from prometheus_client.parser import text_string_to_metric_families
from tests.load.client import Report, at_rate, saturate
from tests.load.stack import Stack, print_requests, running_stack, wait_until_scored

from core.ids import new_report_id
from core.spool import Spool
from probesim.sample import generate
from probesim.vocabulary import NETWORKS

CLIENTS = (1, 10, 64)
SECONDS = 5.0
RATE = 300.0
CHECK_IN_RATE = 50.0
SUSTAINED_S = 15.0
TEMPLATES = 1000
BACKLOG_GONE_S = 60.0
SUBMIT, CHECK_IN = "receive_measurement", "check_in"
"""Endpoints, as the API's metrics name them."""

_NUMBER = b"0000000000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each step; default: 5")
    parser.add_argument("--rate", type=float, default=RATE, help="submissions per second that are held; default: 300")
    parser.add_argument("--sustained", type=float, default=SUSTAINED_S, help="for how many seconds; default: 15")
    options = parser.parse_args(arguments)
    run(options.seconds, options.rate, options.sustained)
    return 0


def run(seconds: float = SECONDS, rate: float = RATE, sustained_s: float = SUSTAINED_S) -> None:
    """Start a stack, load it and print the figures."""
    cores = len(os.sched_getaffinity(0))
    bodies = Bodies()
    with running_stack() as stack, _front(stack) as port:
        way = "gunicorn behind nginx" if port != stack.port else "gunicorn alone, since nginx is not on this machine"
        print(f"probe services: {way}; {TEMPLATES} documents of the own sample made different by a number", flush=True)
        for clients in CLIENTS:
            _step(stack, port, SUBMIT, f"submissions, {clients} clients", bodies, clients, seconds, cores)
            wait_until_scored(stack)
        for clients in CLIENTS:
            _step(stack, port, CHECK_IN, f"check-ins, {clients} clients", check_ins(), clients, seconds, cores)
        _at_rate(stack, port, CHECK_IN, "check-ins", check_ins(), CHECK_IN_RATE, seconds, cores)
        _sustained(stack, port, bodies, rate, sustained_s, cores)


class Bodies:
    """Endless different submissions: documents of the sample, each with a number in it that no other has."""

    def __init__(self) -> None:
        """Make the documents."""
        now = datetime.now(UTC)
        self._number = 0
        self._parts = []
        for document in generate(TEMPLATES, seed=int(now.timestamp()), now=now):
            fields = document.measurement
            asn = int(str(fields["probe_asn"])[2:])
            report_id = new_report_id(now, str(fields["test_name"]), str(fields["probe_cc"]), asn, "1")
            content = {"id": _NUMBER.decode(), **fields, "report_id": report_id}
            body = json.dumps({"format": "json", "content": content}, separators=(",", ":")).encode()
            head, _, tail = body.partition(_NUMBER)
            self._parts.append((f"/report/{report_id}", head, tail))

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and body, for ever."""
        while True:
            self._number += 1
            path, head, tail = self._parts[self._number % TEMPLATES]
            yield path, b"%s%010d%s" % (head, self._number, tail)


def check_ins() -> Iterator[tuple[str, bytes]]:
    """Yield path and body of check-ins from all simulated networks, for ever; three of four are on a charger."""
    chance = random.Random(1)
    bodies = [
        json.dumps(
            {
                "probe_cc": network.cc,
                "probe_asn": f"AS{network.asn}",
                "platform": "android",
                "on_wifi": True,
                "charging": charging,
                "run_type": "timed",
                "software_name": "ooniprobe-android",
                "software_version": "5.2.1",
                "web_connectivity": {"category_codes": []},
            }
        ).encode()
        for network in NETWORKS
        for charging in (True, True, True, False)
    ]
    while True:
        yield "/api/v1/check-in", chance.choice(bodies)


def _step(
    stack: Stack,
    port: int,
    endpoint: str,
    what: str,
    requests: "Bodies | Iterator[tuple[str, bytes]]",
    clients: int,
    seconds: float,
    cores: int,
) -> None:
    before = _histogram(stack, endpoint)
    report = asyncio.run(saturate("127.0.0.1", port, requests, clients, seconds))
    _print(what, report, stack, endpoint, before, cores)


def _at_rate(
    stack: Stack,
    port: int,
    endpoint: str,
    what: str,
    requests: Iterator[tuple[str, bytes]],
    rate: float,
    seconds: float,
    cores: int,
) -> None:
    before = _histogram(stack, endpoint)
    report = asyncio.run(at_rate("127.0.0.1", port, islice(requests, int(rate * seconds)), rate))
    _print(f"{what} at a fixed {rate:.0f}/s for {seconds:.0f} s", report, stack, endpoint, before, cores)


def _sustained(stack: Stack, port: int, bodies: Bodies, rate: float, seconds: float, cores: int) -> None:
    """Hold a rate, then see how long the fastpath needs for what is left."""
    _at_rate(stack, port, SUBMIT, "submissions", iter(bodies), rate, seconds, cores)
    ended = time.monotonic()
    backlog = _backlog(stack)
    left = backlog
    while left and time.monotonic() - ended < BACKLOG_GONE_S:
        time.sleep(0.1)
        left = _backlog(stack)
    gone = f"gone after {time.monotonic() - ended:.1f} s" if not left else f"{left} left after {BACKLOG_GONE_S:.0f} s"
    print(f"backlog at the end of that: {backlog} measurements not scored yet, {gone}", flush=True)


def _backlog(stack: Stack) -> int:
    return Spool(stack.spool).counts().incoming  # one that has counted nothing yet, which remembers no count


def _print(what: str, report: Report, stack: Stack, endpoint: str, before: dict[float, float], cores: int) -> None:
    print_requests(what, report, cores)
    after = _histogram(stack, endpoint)
    grown = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    within = ", ".join(f"p{round(share * 100)} {_quantile(grown, share)}" for share in (0.5, 0.95, 0.99))
    print(f"  in the API itself: {within} ({max(grown.values(), default=0):.0f} requests)", flush=True)


def _histogram(stack: Stack, endpoint: str) -> dict[float, float]:
    """Return how many requests took at most so many seconds, by upper bound, over all workers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.metrics_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "api_request_seconds_bucket" and sample.labels["endpoint"] == endpoint
    }


def _quantile(grown: dict[float, float], share: float) -> str:
    """Return a quantile of a histogram, interpolated within its bucket as Prometheus does."""
    bounds = sorted(grown)
    if not bounds or not grown[bounds[-1]]:
        return "none"
    wanted, lower, below = share * grown[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if grown[bound] >= wanted:
            if bound == float("inf"):
                return f"> {lower * 1000:.0f} ms"
            inside = (wanted - below) / max(grown[bound] - below, 1e-9)
            return f"{(lower + (bound - lower) * inside) * 1000:.1f} ms"
        lower, below = bound, grown[bound]
    raise AssertionError("the last bucket holds everything")


@contextlib.contextmanager
def _front(stack: Stack) -> Iterator[int]:
    """nginx before the API, as the roles configure it; gives the port to send to."""
    if shutil.which("nginx") is None:
        yield stack.port
        return
    from tests.acceptance.nginx_front import Front

    front = Front(stack.port)
    try:
        front.start()
        yield front.tor_port
    finally:
        front.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
