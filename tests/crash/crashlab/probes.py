"""Probes that keep submitting and remember what was acknowledged, which is what must not be lost."""

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from core.ids import new_report_id
from devstack.ports import HOST

_TIMEOUT_S = 10.0
_TRIES = 20
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Sent:
    """An acknowledged measurement."""

    uid: str
    report_id: str
    body: bytes
    document: bytes


class Probes:
    """Some probes, each a thread with one connection; they send while they are entered."""

    def __init__(self, port: int, seed: int, *, probes: int = 3, per_second: float = 20.0) -> None:
        """Send to `port`, about `per_second` each."""
        self._port = port
        self._seed = seed
        self._pause_s = 1 / per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sent: list[Sent] = []
        self.refused = 0
        """Answers 503: the disk is full."""

        self.unanswered = 0
        """Attempts that broke; the same body was sent again."""

        self.given_up = 0
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(probes)]

    @property
    def sent(self) -> list[Sent]:
        """What was acknowledged so far."""
        with self._lock:
            return list(self._sent)

    @property
    def acknowledged(self) -> int:
        """How many measurements were acknowledged so far."""
        return len(self._sent)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        serial = 0
        while not self._stop.is_set():
            report_id, document, body = make_measurement(chance, number, serial)
            self._submit(report_id, document, body)
            serial += 1
            self._stop.wait(self._pause_s * chance.uniform(0.5, 1.5))

    def _submit(self, report_id: str, document: bytes, body: bytes) -> None:
        """Send until it is acknowledged, as probes do; give up when the stop comes or after a while."""
        for _ in range(_TRIES):
            try:
                status, reply = self._post(f"/report/{report_id}", body)
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                if self._stop.wait(_PAUSE_S):
                    break
                continue
            if status == http.client.SERVICE_UNAVAILABLE:
                self.refused += 1
                if self._stop.wait(_PAUSE_S):
                    break
                continue
            assert status == http.client.OK, f"{status} {reply!r}"
            uid = json.loads(reply)["measurement_uid"]
            with self._lock:
                self._sent.append(Sent(uid, report_id, body, document))
            return
        self.given_up += 1

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def make_measurement(chance: random.Random, probe: int, serial: int) -> tuple[str, bytes, bytes]:
    """Return report id, document and body of a measurement that no other one equals."""
    cc = chance.choice(("IT", "BR", "DE"))
    report_id = new_report_id(datetime.now(UTC), "web_connectivity", cc, 30722, "1")
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    fields = {
        "report_id": report_id,
        "input": f"https://{probe}.example/{serial}",
        "probe_cc": cc,
        "probe_asn": "AS30722",
        "test_name": "web_connectivity",
        "test_version": "0.4.3",
        "software_name": "crashlab",
        "software_version": "1",
        "test_start_time": now,
        "measurement_start_time": now,
        "test_runtime": 0.5,
        "annotations": {"probe": str(probe), "serial": str(serial), "salt": f"{chance.getrandbits(128):x}"},
        "test_keys": {"accessible": True, "blocking": False, "pad": chance.randbytes(chance.randrange(2000)).hex()},
    }
    document = json.dumps(fields).encode()
    return report_id, document, b'{"format": "json", "content": ' + document + b"}"


def pace(probes: Probes, more: int, within_s: float) -> bool:
    """Wait until so many more measurements were acknowledged; return whether they were."""
    target, deadline = probes.acknowledged + more, time.monotonic() + within_s
    while probes.acknowledged < target:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
