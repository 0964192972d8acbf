"""What a power cut can take, at any moment and in the worst way the system may choose: nothing that was acknowledged.

The spool's real calls (open, write, fsync, rename, mkdir, unlink, rmdir) are recorded while it works. A model then cuts
the power after each of them. Of what was not synchronised by then, any part may be on disk or not:

- the content of a file, as far as its last fsync; what was written since may be whole, cut short, or zeros;
- a name in a directory, from the last fsync of that directory; names changed since may be old or new, each for itself.

Two things are taken for granted, as every journaling file system gives them: a rename is whole or not at all, and one
that leads into another directory does not come to disk before that directory.
"""

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ids import new_measurement_uid, spool_directory
from core.spool import STATES, Spool, TornFile
from core.spool_files import parse
from core.spool_places import OVERFLOW_AFTER, overflow_folder

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"
WAYS = 8
"""Ways of choosing what survives, tried at each cut: nothing more than must, everything, and some at random."""


@dataclass(frozen=True)
class Event:
    """One call, or something the scenario notes: `ack` when a put returned, `free` before a measurement may go."""

    kind: str
    path: str = ""
    target: str = ""
    data: bytes = b""
    uid: str = ""


class Killed(BaseException):
    """The process was killed: from here on it does nothing at all."""


class Recorder:
    """Stands between the spool and the system, below one root."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.events: list[Event] = []
        self.audited = 0
        self.calls_left: int | None = None
        self._open: dict[int, str] = {}

    def note(self, kind: str, uid: str) -> None:
        self.events.append(Event(kind, uid=uid))

    def relative(self, path: Any) -> str:
        return os.path.relpath(os.fspath(path), self.root)

    def call(self, event: Event, act: Callable[[], Any]) -> Any:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Killed
            self.calls_left -= 1
        result = act()
        self.events.append(event)
        return result

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        real = {name: getattr(os, name) for name in ("open", "close", "write", "fsync")}
        both = {name: getattr(os, name) for name in ("mkdir", "rmdir", "unlink")}
        real_rename = os.rename

        def open_(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if not os.fspath(path).startswith(self.root):
                return int(real["open"](path, flags, mode, **more))
            if not flags & os.O_CREAT:
                descriptor = real["open"](path, flags, mode, **more)
            else:
                assert flags & os.O_EXCL, "the model knows new files only"
                descriptor = self.call(
                    Event("create", self.relative(path)), lambda: real["open"](path, flags, mode, **more)
                )
            self._open[descriptor] = self.relative(path)
            return int(descriptor)

        def close(descriptor: int) -> None:
            self._open.pop(descriptor, None)
            real["close"](descriptor)

        def write(descriptor: int, data: Any) -> int:
            if descriptor not in self._open:
                return int(real["write"](descriptor, data))
            part = bytes(data)[: random.randint(1, len(data))]  # the system may take less than it is given
            event = Event("write", self._open[descriptor], data=part)
            return int(self.call(event, lambda: real["write"](descriptor, part)))

        def fsync(descriptor: int) -> None:
            event = Event("fsync", self._open[descriptor])
            self.call(event, lambda: None)  # the model decides what it is worth; the test's own disk need not wait

        def rename(source: Any, target: Any) -> None:
            event = Event("rename", self.relative(source), self.relative(target))
            self.call(event, lambda: real_rename(source, target))

        def named(kind: str) -> Callable[..., None]:
            def act(path: Any, *arguments: Any, **more: Any) -> None:
                self.call(Event(kind, self.relative(path)), lambda: both[kind](path, *arguments, **more))

            return act

        replaced: dict[str, Any] = {"open": open_, "close": close, "write": write, "fsync": fsync, "rename": rename}
        replaced |= {kind: named(kind) for kind in both}
        originals = {name: getattr(os, name) for name in replaced}
        _audited.append(self)
        try:
            for name, function in replaced.items():
                setattr(os, name, function)
            yield self
        finally:
            for name, function in originals.items():
                setattr(os, name, function)
            _audited.remove(self)


_audited: list[Recorder] = []
_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate")


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    """Count the changes that the interpreter itself reports, so that none passes the recorder by."""
    if _audited and name in _CHANGES and str(arguments[0]).startswith(_audited[-1].root):
        _audited[-1].audited += 1


sys.addaudithook(_audit)


@dataclass
class Disk:
    """The recorded calls up to a power cut, and what may be left of them."""

    events: Sequence[Event]
    names: list[int] = field(default_factory=list)  # positions of the calls that change names
    forced: set[int] = field(default_factory=set)  # those that are on disk for certain
    durable: dict[int, int] = field(default_factory=dict)  # position of a create -> bytes of content on disk
    content: dict[int, bytearray] = field(default_factory=dict)  # position of a create -> all content
    needs: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last: dict[str, int] = {}  # path -> position of the last call that changed this name
        file_at: dict[str, int] = {}  # path -> position of the create of the file that has this name
        in_directory: dict[str, list[int]] = {}
        made: dict[str, int] = {}
        for position, event in enumerate(self.events):
            if event.kind == "write":
                self.content[file_at[event.path]] += event.data
            elif event.kind == "fsync" and event.path in file_at:
                self.durable[file_at[event.path]] = len(self.content[file_at[event.path]])
            elif event.kind == "fsync":
                for earlier in in_directory.get(event.path, []):
                    self._force(earlier)
            elif event.kind in ("create", "mkdir", "rename", "unlink", "rmdir"):
                self.names.append(position)
                paths = [event.path, event.target] if event.kind == "rename" else [event.path]
                needs = [last[path] for path in paths if path in last]
                if event.kind == "rename":
                    if _parent(event.path) != _parent(event.target) and _parent(event.target) in made:
                        needs.append(made[_parent(event.target)])
                    file_at[event.target] = file_at.pop(event.path)
                elif event.kind == "rmdir":  # only what is empty can be removed
                    needs += in_directory.get(event.path, [])
                elif event.kind == "create":
                    file_at[event.path] = position
                    self.content[position] = bytearray()
                elif event.kind == "mkdir":
                    made[event.path] = position
                else:
                    file_at.pop(event.path, None)
                self.needs[position] = needs
                for path in paths:
                    last[path] = position
                    in_directory.setdefault(_parent(path), []).append(position)

    def _force(self, position: int) -> None:
        if position not in self.forced:
            self.forced.add(position)
            for earlier in self.needs[position]:
                self._force(earlier)

    def after_the_cut(self, choose: Callable[[], float]) -> dict[str, bytes | None]:
        """Return one state that the disk may be in: content by path, None for a directory."""
        kept = set(self.forced)
        for position in self.names:
            if position not in kept and choose() > 0.5 and all(earlier in kept for earlier in self.needs[position]):
                kept.add(position)
        found: dict[str, int | None] = {".": None}
        for position in sorted(kept):
            event = self.events[position]
            if event.kind == "create":
                found[event.path] = position
            elif event.kind == "mkdir":
                found[event.path] = None
            elif event.kind == "rename":
                found[event.target] = found.pop(event.path)
            else:
                found.pop(event.path, None)
        reachable = {path: file for path, file in found.items() if all(str(up) in found for up in Path(path).parents)}
        return {path: None if file is None else self._bytes(file, choose) for path, file in reachable.items()}

    def _bytes(self, file: int, choose: Callable[[], float]) -> bytes:
        content, safe = bytes(self.content[file]), self.durable.get(file, 0)
        lost = len(content) - safe
        fate = choose()
        if fate > 0.8:
            return content
        if fate > 0.4:
            return content[:safe] + bytes(lost)
        return content[: safe + int(choose() * lost)]


def _parent(path: str) -> str:
    return str(Path(path).parent)


def losses(events: Sequence[Event], bodies: dict[str, bytes], rng: random.Random) -> list[str]:
    """Cut the power after each call and return what was acknowledged, still owed, and not found whole."""
    lost: list[str] = []
    for cut in range(len(events) + 1):
        if cut and events[cut - 1].kind == "write":
            continue
        before = events[:cut]
        owed = {event.uid for event in before if event.kind == "ack"}
        owed -= {event.uid for event in before if event.kind == "free"}
        disk = Disk(before)
        for way in range(WAYS):
            choose = (lambda: 0.0, lambda: 1.0)[way] if way < 2 else rng.random
            state = disk.after_the_cut(choose)
            lost += [f"{uid} at {cut}" for uid in owed if not found_whole(state, uid, bodies[uid])]
    return lost


def found_whole(state: dict[str, bytes | None], uid: str, body: bytes) -> bool:
    """Whether the spool would find the measurement: the first of the states that has a file decides."""
    for name, folder in itertools.product(STATES, (f"{overflow_folder(uid)}/", "")):
        raw = state.get(f"{name}/{spool_directory(uid)}/{folder}{uid}.post")
        if raw is not None:
            try:
                record = parse(uid, raw)
            except TornFile:
                return False
            return (record.body, record.report_id) == (body, REPORT)
    return False


def make_uid(body: bytes, age_s: float) -> str:
    return new_measurement_uid(datetime.now(UTC) - timedelta(seconds=age_s), "IT", "ndt", body)


STEPS = ("put", "put_again", "mark_scored", "quarantine", "release", "remove_scored", "erase", "confirm", "prune")


class Scenario:
    """Two processes at work on one spool; each step may be the one in which its process is killed."""

    def __init__(self, root: Path, overflow_after: int = OVERFLOW_AFTER) -> None:
        self.recorder = Recorder(root)
        self.bodies: dict[str, bytes] = {}
        self.root = root
        self.overflow_after = overflow_after

    def spool(self) -> Spool:
        return Spool(self.root, min_free_bytes=0, overflow_after=self.overflow_after)

    def run(self, steps: Sequence[tuple[str, int, int | None]]) -> None:
        with self.recorder.recording():
            spools = [self.spool() for _ in range(2)]
            for number, (step, which, calls) in enumerate(steps):
                self.recorder.calls_left = calls
                try:
                    self.step(spools[which], step, number)
                except Killed:
                    self.recorder.calls_left = None
                    spools[which] = self.spool()
                self.recorder.calls_left = None

    def step(self, spool: Spool, step: str, number: int) -> None:
        known = list(self.bodies)
        some = known[number % 3 :: 2]
        if step == "put":
            body = b'{"n": %d, "x": "%s"}' % (number, b"x" * (number * 37 % 300))
            uid = make_uid(body, age_s=(number % 2) * 7200)
            self.bodies[uid] = body
            spool.put(uid, body, REPORT)
            self.recorder.note("ack", uid)
        elif step == "put_again" and known:
            spool.put(known[-1], self.bodies[known[-1]], REPORT)
            self.recorder.note("ack", known[-1])
        elif step == "confirm" and known:
            if spool.confirm(known[-1]):
                self.recorder.note("ack", known[-1])
        elif step == "mark_scored":
            spool.mark_scored(some)
        elif step == "quarantine" and known:
            spool.quarantine(known[number % len(known)], "a test")
        elif step == "release" and known:
            spool.release(known[number % len(known)])
        elif step == "remove_scored":
            for uid in some:
                if spool.path("scored", uid).exists():
                    self.recorder.note("free", uid)
            spool.remove_scored(some)
        elif step == "erase" and known:
            self.recorder.note("free", known[0])
            spool.erase(known[0])
        elif step == "prune":
            spool.prune()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(STEPS) | st.just("put"),
            st.integers(0, 1),
            st.none() | st.none() | st.integers(0, 12),
        ),
        max_size=14,
    ),
    seed=st.integers(0, 2**32),
    overflow_after=st.sampled_from((OVERFLOW_AFTER, 0, 1)),
)
@settings(max_examples=150)
def test_nothing_acknowledged_is_lost_whenever_the_power_goes(steps: list[Any], seed: int, overflow_after: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        scenario = Scenario(Path(root), overflow_after)
        scenario.run(steps)
        events = scenario.recorder.events
        assert losses(events, scenario.bodies, random.Random(seed)) == []
        changes = [event for event in events if event.kind in ("rename", "mkdir", "rmdir", "unlink")]
        assert scenario.recorder.audited >= len(changes)


PLAIN = [("put", 0, None), ("put", 0, None), ("put", 1, None), ("mark_scored", 1, None), ("put", 0, None)]


def record(
    steps: Sequence[tuple[str, int, int | None]], overflow_after: int = OVERFLOW_AFTER
) -> tuple[list[Event], dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as root:
        scenario = Scenario(Path(root), overflow_after)
        scenario.run(steps)
        return scenario.recorder.events, scenario.bodies


def test_the_plain_way_loses_nothing() -> None:
    events, bodies = record(PLAIN)
    assert sum(event.kind == "ack" for event in events) == 4
    assert losses(events, bodies, random.Random(1)) == []


@pytest.mark.parametrize(
    ("defect", "dropped"),
    [
        ("content not synchronised", r".*\.tmp"),
        ("directory of the measurement not synchronised", r"incoming/.*_ndt"),
        ("directory of the state not synchronised", r"incoming"),
    ],
)
def test_the_model_sees_a_missing_fsync(defect: str, dropped: str) -> None:
    """Without this, the tests above would prove nothing."""
    events, bodies = record(PLAIN)
    kept = [event for event in events if not (event.kind == "fsync" and re.fullmatch(dropped, event.path))]
    assert len(kept) < len(events), defect
    assert losses(kept, bodies, random.Random(1)), defect


def test_the_model_sees_an_answer_before_the_fsync() -> None:
    events, bodies = record(PLAIN)
    early = sorted(events, key=lambda event: event.kind != "ack")
    assert losses(early, bodies, random.Random(1))


def test_the_model_sees_a_deletion_that_comes_too_early() -> None:
    events, bodies = record([*PLAIN, ("remove_scored", 0, None)])
    hasty = [event for event in events if event.kind != "free"]
    assert len(hasty) < len(events)
    assert losses(hasty, bodies, random.Random(1))


def test_a_directory_that_another_process_made_and_did_not_synchronise() -> None:
    """It dies right after mkdir. Who comes next must not rely on the name being on disk."""
    for calls, overflow_after in itertools.product(range(1, 7), (OVERFLOW_AFTER, 0)):
        events, bodies = record([("put", 0, calls), ("put_again", 1, None), ("put", 1, None)], overflow_after)
        assert sum(event.kind == "ack" for event in events) == 2
        assert losses(events, bodies, random.Random(calls)) == [], calls


@pytest.mark.parametrize("move", ["mark_scored", "quarantine"])
def test_a_directory_for_moves_that_another_process_made_and_did_not_synchronise(move: str) -> None:
    """What lies safe on disk must not follow into a directory that the power cut takes away."""
    for calls, overflow_after in itertools.product(range(1, 7), (OVERFLOW_AFTER, 0)):
        steps = [("put", 0, None), ("mark_scored", 1, None), ("put", 1, None), (move, 0, calls), (move, 1, None)]
        events, bodies = record(steps, overflow_after)
        assert losses(events, bodies, random.Random(calls)) == [], (calls, overflow_after)


def test_the_spool_itself_reads_what_the_model_says_is_left(tmp_path: Path) -> None:
    """The model's verdict and the program's agree, for one state after each cut."""
    events, bodies = record([*PLAIN, ("quarantine", 0, None), ("release", 0, None)])
    rng = random.Random(3)
    for cut in range(len(events) + 1):
        state = Disk(events[:cut]).after_the_cut(rng.random)
        root = tmp_path / str(cut)
        root.mkdir()
        for path in sorted(state):
            content = state[path]
            if content is None:
                (root / path).mkdir(exist_ok=True)
            else:
                (root / path).write_bytes(content)
        spool = Spool(root, min_free_bytes=0)
        for uid, body in bodies.items():
            try:
                kept = spool.read(uid)
            except TornFile:
                kept = None
            assert (kept is not None and kept.body == body) == found_whole(state, uid, body)


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: the system's own record is missing"
)
def test_the_record_is_what_the_system_sees(tmp_path: Path) -> None:
    """The same steps under strace give the same calls in the same order."""
    uid = make_uid(b"{}", 0)
    program = (
        "import sys; from pathlib import Path; from core.spool import Spool\n"
        f"uid, root = {uid!r}, Path(sys.argv[1])\n"
        "spool = Spool(root, min_free_bytes=0)\n"
        "spool.put(uid, b'{}', 'r'); spool.mark_scored([uid]); spool.quarantine(uid, 'why'); spool.release(uid)\n"
        "spool.mark_scored([uid]); spool.remove_scored([uid])\n"
    )
    root, traced = tmp_path / "traced", tmp_path / "trace"
    calls = "trace=openat,fsync,fdatasync,link,linkat,truncate,/^(rename|mkdir|unlink|rmdir)"
    tracer = ["strace", "-f", "-y", "-s", "300", "-o", str(traced), "-e", calls]
    subprocess.run([*tracer, sys.executable, "-c", program, root], check=True)
    lines = traced.read_text().splitlines()
    seen = list(itertools.chain.from_iterable(_parse_strace(line, str(root)) for line in lines))
    own_root = tmp_path / "recorded"
    recorder = Recorder(own_root)
    with recorder.recording():
        spool = Spool(own_root, min_free_bytes=0)
        spool.put(uid, b"{}", "r")
        spool.mark_scored([uid])
        spool.quarantine(uid, "why")
        spool.release(uid)
        spool.mark_scored([uid])
        spool.remove_scored([uid])
    recorded = [(event.kind, event.path) for event in recorder.events if event.kind != "write"]
    for each in (seen, recorded):  # temporary names are each process's own
        each[:] = [(kind, re.sub(r"\d+-\d+\.tmp", "tmp", path)) for kind, path in each]
    assert seen == recorded


_STRACE = re.compile(r"\d+\s+(\w+)\((.*)\)\s+= (-?\d+)")


def _parse_strace(line: str, root: str) -> Iterator[tuple[str, str]]:
    match = _STRACE.match(line)
    if match is None or match[3].startswith("-"):
        return
    name, arguments = match[1], match[2]
    kind = "fsync" if name == "fdatasync" else re.sub("at2?$", "", name)
    if name == "unlinkat" and "AT_REMOVEDIR" in arguments:
        kind = "rmdir"
    if name == "openat":
        if "O_CREAT" not in arguments:
            return
        kind = "create"
    found = re.search(rf"[<\"]({re.escape(root)}[^>\"]*)[>\"]", arguments)
    if found:
        yield kind, os.path.relpath(found[1], root)
