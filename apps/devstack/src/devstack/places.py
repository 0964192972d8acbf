"""The directory of a stack: what lies where, who may use it, and how it is forgotten."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from devstack.errors import StackError

ELSEWHERE = Path("/var/tmp")  # noqa: S108 survives a reboot, and every user may enter it; ownership is checked
_TAKEOVER_S = 40.0
"""How long the processes of a killed stack may take to stop; longer than the watchdog gives them."""


class Places:
    """Paths below one RUN_DIR."""

    def __init__(self, root: Path) -> None:
        """Name the places; nothing is made yet."""
        self.root = root
        self.spool = root / "spool"
        self.objects = root / "objects"
        self.logs = root / "log"
        self.state = root / "state"
        self.postgres = root / "postgres"
        self.lock_file = root / "devstack.lock"
        self.note = root / "devstack.json"
        self.empty_config = root / "empty.toml"

    def prepare(self) -> None:
        """Make the directories.

        Raises:
            StackError: the directory cannot be made or written.
        """
        try:
            for directory in (self.root, self.spool, self.objects, self.logs):
                directory.mkdir(parents=True, exist_ok=True)
            self.state.mkdir(mode=0o700, exist_ok=True)
            self.empty_config.write_text("# The stack configures its programs by environment variables only.\n")
        except OSError as error:
            raise StackError(
                f"{self.root} cannot be written ({error.strerror}). "
                "Choose another place for the data: make run RUN_DIR=/var/tmp/run"
            ) from None

    @contextlib.contextmanager
    def lock(self, say: Callable[[str], None], check: Callable[[], None]) -> Iterator[int]:
        """Hold the directory for this process; gives the descriptor of the lock file.

        The watchdog inherits the descriptor, so that the lock outlives a killed stack until its processes are gone;
        this waits for that, calling `check` in between.

        Raises:
            StackError: another stack runs here.
        """
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(descriptor, say, check)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, say: Callable[[str], None], check: Callable[[], None]) -> None:
        deadline, told = time.monotonic() + _TAKEOVER_S, False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            else:
                return
            if holder.isdigit() and _alive(int(holder)):
                raise StackError(
                    f"Another stack (process {holder}) is running in {self.root}. Stop it with Ctrl-C in its "
                    f"terminal or `kill {holder}`, or start this one elsewhere: make run PORT=8081 RUN_DIR=run2"
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"Processes of an earlier stack still hold {self.lock_file}. "
                    f"Find them with `fuser {self.lock_file}` and stop them."
                )
            if not told:
                say("An earlier stack was killed here; waiting for its processes to stop.")
                told = True
            check()
            time.sleep(0.2)

    def remembered_postgres(self) -> Path:
        """Return where PostgreSQL's data is: below RUN_DIR, or where an earlier run had to put it."""
        try:
            return Path(json.loads(self.note.read_text())["postgres"])
        except (OSError, ValueError, KeyError, TypeError):
            return self.postgres

    def postgres_elsewhere(self) -> Path:
        """Return (and remember) a place for PostgreSQL's data that its unprivileged user can reach.

        Raises:
            StackError: the place exists and belongs to somebody else.
        """
        parent = self._elsewhere()
        parent.mkdir(mode=0o755, exist_ok=True)
        found = parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StackError(f"{parent} belongs to another user. Choose another RUN_DIR: make run RUN_DIR=/srv/run")
        place = parent / "postgres"
        self.note.write_text(json.dumps({"postgres": str(place)}))
        return place

    def forget(self) -> list[Path]:
        """Delete everything that a stack keeps here, and only that; return what was deleted.

        Raises:
            StackError: something cannot be deleted.
        """
        found = [self.spool, self.objects, self.logs, self.state, self.postgres, self._elsewhere()]
        deleted = []
        try:
            for path in found:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                    deleted.append(path)
            for path in (self.note, self.empty_config, self.lock_file):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StackError(
                f"{error.filename} cannot be deleted ({error.strerror}). Delete it as the user who ran the stack."
            ) from None
        with contextlib.suppress(OSError):  # something of somebody else's is in there: it stays
            self.root.rmdir()
        return deleted

    def _elsewhere(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return ELSEWHERE / f"backend-run-{name}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
