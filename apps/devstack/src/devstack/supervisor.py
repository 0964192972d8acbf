"""Keeps the services running: looks after them from every waiting loop of the stack, in one thread."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devstack.children import Child
from devstack.errors import StackError, Stopping

TICK_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_SETTLED_S = 20.0
"""A child that ran this long gets the shortest pause again when it dies."""

_BOUND_LOGS_S = 30.0


@dataclass(slots=True)
class _Service:
    child: Child
    started: float
    starting: bool = False
    """Not yet healthy for the first time: its end is an error, and not repaired."""
    pause_s: float = _FIRST_PAUSE_S
    restart_at: float | None = None


class Supervisor:
    """Owns the services of a stack. `tick` must be called often; the waiting functions here do."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Begin without services; `say` prints a line for the user."""
        self._say = say
        self.guards: list[Callable[[], None]] = []
        """Called with every tick: what else is to be looked after."""
        self._services: list[_Service] = []
        self._stop_asked = False
        self._finishing = False
        # Under make, this program is to end with it, also when make is killed; from a shell it may outlive its parent.
        self._parent = os.getppid() if "MAKELEVEL" in os.environ else None
        self._logs_due = 0.0

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody asked the stack to stop."""
        return self._stop_asked

    def listen(self) -> None:
        """Take Ctrl-C, SIGTERM and a lost terminal as the wish to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asked to go on without a terminal
            signal.signal(signal.SIGHUP, self._ask_to_stop)

    def start(self, services: Sequence[tuple[Child, Callable[[], bool]]], patience_s: float = 60.0) -> None:
        """Start services side by side, wait until each is healthy, and keep them running from now on.

        Raises:
            StackError: one ended before it was healthy, or was not in time; with the end of its log.
        """
        for child, _ in services:
            child.start()
            self._services.append(_Service(child, time.monotonic(), starting=True))
        deadline = time.monotonic() + patience_s
        waiting = list(services)
        while waiting:
            child, healthy = waiting[0]
            if healthy():
                del waiting[0]
                continue
            problem = None
            if child.pid is None:
                problem = f"ended with status {child.exit_status} before it was ready"
            elif time.monotonic() > deadline:
                problem = f"was not ready after {patience_s:.0f} s"
            if problem:
                raise StackError(f"{child.name} {problem}. The end of {child.log_file}:\n{child.last_lines()}")
            self.sleep(TICK_S)
        for service in self._services:
            service.starting = False

    def keep(self, child: Child) -> None:
        """Start a child that needs no health check and keep it running."""
        child.start()
        self._services.append(_Service(child, time.monotonic()))

    def tick(self) -> None:
        """Restart what died.

        Raises:
            Stopping: somebody asked to stop, or killed the make that runs this.
        """
        orphaned = self._parent is not None and os.getppid() != self._parent
        if (self._stop_asked or orphaned) and not self._finishing:
            self._finishing = True
            raise Stopping
        if self._finishing:
            return
        for guard in self.guards:
            guard()
        now = time.monotonic()
        for service in self._services:
            self._look_after(service, now)
        if now >= self._logs_due:
            self._logs_due = now + _BOUND_LOGS_S
            for service in self._services:
                service.child.bound_log()

    def sleep(self, seconds: float) -> None:
        """Wait and look after the services meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            self.tick()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            time.sleep(min(TICK_S, remaining))

    def run(self, child: Child, patience_s: float = 120.0) -> None:
        """Run a command to its end.

        Raises:
            StackError: it failed or took longer than `patience_s`; with the end of its log.
        """
        child.start()
        deadline = time.monotonic() + patience_s
        while child.pid is not None:
            if time.monotonic() > deadline:
                child.stop()
                raise StackError(
                    f"{child.name} did not end within {patience_s:.0f} s. "
                    f"The end of {child.log_file}:\n{child.last_lines()}"
                )
            self.sleep(TICK_S / 4)
        if child.exit_status != 0:
            raise StackError(
                f"{child.name} failed with status {child.exit_status}. "
                f"The end of {child.log_file}:\n{child.last_lines()}"
            )

    def stop(self) -> None:
        """Stop all services, the last started first."""
        self._finishing = True
        for service in reversed(self._services):
            service.child.stop()
        self._services.clear()

    def _look_after(self, service: _Service, now: float) -> None:
        child = service.child
        if service.starting:
            return
        if child.pid is not None:
            if now - service.started > _SETTLED_S:
                service.pause_s = _FIRST_PAUSE_S
            return
        if service.restart_at is None:
            service.restart_at = now + service.pause_s
            how = child.exit_status
            by = f"was killed by signal {-how}" if how is not None and how < 0 else f"ended with status {how}"
            self._say(f"{child.name} {by}; starting it again (its log: {child.log_file})")
            service.pause_s = min(service.pause_s * 2, _LONGEST_PAUSE_S)
        elif now >= service.restart_at:
            service.restart_at = None
            service.started = now
            child.start()

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self._stop_asked = True
