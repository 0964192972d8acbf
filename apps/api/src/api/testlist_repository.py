"""The git repository of the test lists: a bare clone on each host, its lists, and branches with changed ones.

All worker processes of a host share the clone. It is refreshed in the background when somebody asks and it is older
than `REFRESH_S`; nobody waits for that, except for the first clone and for submissions, which begin with a refresh. The
file `fetched` in it names the commit that counts, and its time is that of the last refresh. A clone that cannot be read
is made anew. Nothing in it is worth keeping: what people change is in the database.
"""

import base64
import contextlib
import fcntl
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from api.git_command import Git, GitError
from api.metrics import TEST_LIST_FETCHES
from api.testlist_entries import ListEntry
from api.testlist_file import ListDamaged, ListFile
from core.testlists import MAX_FILE_BYTES

DIRECTORY = "test-lists.git"
"""Name of the clone in `state_directory`."""

REFRESH_S = 180.0
RETRY_S = 30.0
"""Time after a refresh that failed before this worker tries again, in seconds."""

FIRST_CLONE_S = 600.0
FETCH_S = 60.0
"""Longest time of a refresh in the background, in seconds."""

URGENT_FETCH_S = 20.0
PUSH_S = 30.0
PATIENCE_S = 10.0
"""Longest time that a request waits for the first clone, in seconds."""

_LOCAL_S = 10.0
_STAMP = "fetched"
_LOCK = ".test-lists.lock"
_KEPT_LISTS = 64
_COMMIT = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_LIST = re.compile(r"lists/(global|[a-z]{2})\.csv", re.ASCII)
_LONGEST_TOKEN = 1000

log = structlog.get_logger(__name__)


class RepositoryUnavailable(Exception):
    """The repository, or the clone of it, cannot be used now; the text says why."""


@dataclass(frozen=True, slots=True)
class Author:
    """Whose name and address commits bear: the service's, never a person's."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Lists:
    """All lists at one commit. `blobs`: identifiers of the files, by name of the list."""

    commit: str
    blobs: Mapping[str, str]
    repository: "ListRepository" = field(repr=False)

    def file(self, name: str) -> ListFile | None:
        """Return a list, None when there is none. Raises RepositoryUnavailable, also when it is damaged."""
        blob = self.blobs.get(name)
        return None if blob is None else self.repository.list_file(name, blob)

    def entries(self, name: str) -> tuple[ListEntry, ...]:
        """Return the entries of a list, none when there is no such list. Raises as `file`."""
        file = self.file(name)
        return () if file is None else file.entries


class ListRepository:
    """The clone of this host, used by one worker process. Safe to share between threads."""

    def __init__(
        self,
        state_directory: Path,
        *,
        origin: str,
        branch: str,
        push: str,
        author: Author,
        token_file: Path | None = None,
        refresh_s: float = REFRESH_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Take where the clone is, and what it is of. Nothing is fetched before somebody asks.

        Args:
            state_directory: where the clone is kept.
            origin: address or path of the repository with the lists.
            branch: its branch that counts.
            push: address or path of the repository that branches are pushed to.
            author: of the commits.
            token_file: file with the token for pushing over https; None without.
            refresh_s: age at which the clone is refreshed, in seconds.
            retry_s: see `RETRY_S`.
        """
        self._directory = state_directory / DIRECTORY
        self._lock_path = state_directory / _LOCK
        self._git = Git(self._directory)
        self._origin = origin
        self._branch = branch
        self._push = push
        self._author = author
        self._token_file = token_file
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._fetching: threading.Thread | None = None
        self._next_try = 0.0
        self._known: Lists | None = None
        self._files: OrderedDict[str, ListFile] = OrderedDict()

    def lists(self) -> Lists:
        """Return the lists as they are in the clone; waits `PATIENCE_S` at most when there is no clone yet.

        Raises:
            RepositoryUnavailable: there is no clone, or it cannot be read.
        """
        stamp = self._stamp()
        if stamp is None or not 0 <= time.time() - stamp[1] < self._refresh_s:
            self.refresh_soon()
        if stamp is None:
            stamp = self._first_stamp()
        return self._at(stamp[0])

    def refresh_soon(self) -> None:
        """Begin a refresh in the background, unless one runs or has just failed."""
        with self._lock:
            running = self._fetching is not None and self._fetching.is_alive()
            if running or time.monotonic() < self._next_try:
                return
            self._next_try = time.monotonic() + self._retry_s
            self._fetching = threading.Thread(target=self._fetch_in_background, name="test-lists", daemon=True)
            self._fetching.start()

    def fresh(self) -> Lists:
        """Refresh now, and return the lists. Raises RepositoryUnavailable."""
        if self._stamp() is None:
            return self.lists()
        try:
            with self._locked(URGENT_FETCH_S) as lock_taken:
                if not lock_taken:
                    raise GitError("another refresh takes long")
                commit = self._fetch(URGENT_FETCH_S)
        except (GitError, OSError) as error:
            self._failed(error)
            raise RepositoryUnavailable(str(error)) from error
        return self._at(commit)

    def push(self, base: Lists, files: Mapping[str, bytes], message: str, branch: str) -> str:
        """Push a commit on top of `base` in which some lists are other ones; returns its identifier.

        A branch of that name is replaced, so it can be done again after it was cut off.

        Raises:
            RepositoryUnavailable: it failed; the branch may have been pushed all the same.
        """
        try:
            commit = self._commit(base, files, message)
            self._send(f"{commit}:refs/heads/{branch}")
        except (GitError, OSError) as error:
            raise RepositoryUnavailable(str(error)) from error
        return commit

    def has_branch(self, branch: str) -> bool:
        """Return whether the repository of the proposals has a branch. Raises RepositoryUnavailable."""
        try:
            found = self._remote("ls-remote", "--heads", "--", self._push, f"refs/heads/{branch}")
        except (GitError, OSError) as error:
            raise RepositoryUnavailable(str(error)) from error
        return bool(found.strip())

    def delete_branch(self, branch: str) -> None:
        """Delete a branch from the repository of the proposals, if it is there. Raises RepositoryUnavailable."""
        if self.has_branch(branch):
            try:
                self._send(f":refs/heads/{branch}")
            except (GitError, OSError) as error:
                raise RepositoryUnavailable(str(error)) from error

    def list_file(self, name: str, blob: str) -> ListFile:
        """Return the list in a blob; `name` is for errors. Raises RepositoryUnavailable."""
        with self._lock:
            if blob in self._files:
                self._files.move_to_end(blob)
                return self._files[blob]
        try:
            size = int(self._git.run("cat-file", "-s", blob, timeout_s=_LOCAL_S))
            if size > MAX_FILE_BYTES:
                raise ListDamaged(f"it is larger than {MAX_FILE_BYTES // 1024**2} MiB")
            file = ListFile(self._git.run("cat-file", "blob", blob, timeout_s=_LOCAL_S))
        except ListDamaged as error:
            raise RepositoryUnavailable(f"the list {name} is damaged: {error}") from error
        except GitError as error:
            raise self._unreadable(error) from error
        with self._lock:
            self._files[blob] = file
            while len(self._files) > _KEPT_LISTS:
                self._files.popitem(last=False)
        return file

    def _at(self, commit: str) -> Lists:
        known = self._known
        if known is not None and known.commit == commit:
            return known
        try:
            listing = self._git.run("ls-tree", "-z", commit, "lists/", timeout_s=_LOCAL_S).decode("utf-8", "replace")
        except GitError as error:
            raise self._unreadable(error) from error
        blobs = {}
        for line in filter(None, listing.split("\0")):
            head, _, path = line.partition("\t")
            match = _LIST.fullmatch(path)
            if match is not None and head.split()[1] == "blob" and head.startswith("100"):  # no links
                blobs[match[1]] = head.split()[2]
        self._known = Lists(commit, blobs, self)
        return self._known

    def _unreadable(self, error: GitError) -> RepositoryUnavailable:
        """Let the clone be checked, and made anew if need be."""
        with contextlib.suppress(OSError):
            (self._directory / _STAMP).unlink(missing_ok=True)
        log.error("clone of the test lists unreadable; it is checked, and made anew if need be", error=str(error))
        return RepositoryUnavailable(str(error))

    def _stamp(self) -> tuple[str, float] | None:
        """Return the commit that counts, and when it was fetched, in Unix seconds."""
        path = self._directory / _STAMP
        try:
            text = path.read_text(encoding="ascii").strip()
            return (text, path.stat().st_mtime) if _COMMIT.fullmatch(text) else None
        except (OSError, ValueError):
            return None

    def _first_stamp(self) -> tuple[str, float]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            stamp = self._stamp()
            if stamp is not None:
                return stamp
            thread = self._fetching
            if thread is None or not thread.is_alive():
                time.sleep(0.2)  # another worker may be at it
                if self._stamp() is None and not self._is_locked():
                    break
            else:
                thread.join(0.2)
        stamp = self._stamp()
        if stamp is None:
            raise RepositoryUnavailable("the test lists were not fetched yet")
        return stamp

    def _fetch_in_background(self) -> None:
        try:
            with self._locked(0.0) as lock_taken:
                stamp = self._stamp()
                if not lock_taken or (stamp is not None and 0 <= time.time() - stamp[1] < self._retry_s):
                    return  # another worker did it, or does
                self._fetch(FETCH_S if self._is_sound() else FIRST_CLONE_S)
        except (GitError, OSError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        TEST_LIST_FETCHES.labels("failed").inc()
        log.error("test lists not fetched; the last ones serve", error=str(error))

    def _fetch(self, timeout_s: float) -> str:
        """Bring the clone up to date; returns the commit. Call it with the lock."""
        if not self._is_sound():
            shutil.rmtree(self._directory, ignore_errors=True)
            self._git.run("init", "--quiet", "--bare", timeout_s=_LOCAL_S)
        ref = f"refs/heads/{self._branch}"
        self._remote("fetch", "--quiet", "--no-tags", "--", self._origin, f"+{ref}:{ref}", timeout_s=timeout_s)
        commit = self._git.run("rev-parse", "--verify", f"{ref}^{{commit}}", timeout_s=_LOCAL_S).decode().strip()
        draft = self._directory / f".{_STAMP}.{os.getpid()}"
        draft.write_text(f"{commit}\n", encoding="ascii")
        draft.rename(self._directory / _STAMP)
        TEST_LIST_FETCHES.labels("ok").inc()
        return commit

    def _is_sound(self) -> bool:
        """Whether there is a clone whose lists can be read."""
        if not (self._directory / "HEAD").is_file():
            return False
        try:
            listing = self._git.run("ls-tree", "-z", f"refs/heads/{self._branch}", "lists/", timeout_s=_LOCAL_S)
            blobs = [line.split(b"\t")[0].split()[2] for line in listing.split(b"\0") if line]
            told = self._git.run("cat-file", "--batch-check", stdin=b"\n".join(blobs) + b"\n", timeout_s=_LOCAL_S)
        except (GitError, IndexError):
            return False
        return b" missing" not in told

    @contextlib.contextmanager
    def _locked(self, wait_s: float) -> Iterator[bool]:
        """Hold the lock among the workers of this host; yields False without it, after `wait_s` seconds."""
        self._lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with self._lock_path.open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        yield False
                        return
                    time.sleep(0.05)
                else:
                    break
            yield True

    def _is_locked(self) -> bool:
        with self._locked(0.0) as lock_taken:
            return not lock_taken

    def _commit(self, base: Lists, files: Mapping[str, bytes], message: str) -> str:
        blobs = {
            f"{name}.csv": self._git.run("hash-object", "-w", "--stdin", stdin=data, timeout_s=_LOCAL_S).strip()
            for name, data in files.items()
        }
        lists = self._tree(f"{base.commit}:lists", blobs)
        tree = self._tree(base.commit, {"lists": lists})
        author = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", self._author.name), ("EMAIL", self._author.address))
        }
        made = self._git.run(
            "commit-tree",
            tree.decode(),
            "-p",
            base.commit,
            stdin=message.encode("utf-8", "replace"),
            environment=author,
            timeout_s=_LOCAL_S,
        )
        return made.decode().strip()

    def _tree(self, tree: str, changed: Mapping[str, bytes]) -> bytes:
        """Write a tree that is like another one apart from some entries; returns its identifier."""
        lines = []
        for line in self._git.run("ls-tree", "-z", tree, timeout_s=_LOCAL_S).split(b"\0"):
            head, _, name = line.partition(b"\t")
            known = changed.get(name.decode("utf-8", "surrogateescape"))
            lines.append(line if known is None else b" ".join([*head.split()[:2], known]) + b"\t" + name)
        return self._git.run("mktree", "-z", "--missing", stdin=b"\0".join(lines), timeout_s=_LOCAL_S).strip()

    def _send(self, what: str) -> None:
        self._remote("push", "--quiet", "--force", "--no-verify", "--", self._push, what, timeout_s=PUSH_S)

    def _remote(self, *arguments: str, timeout_s: float = URGENT_FETCH_S) -> bytes:
        """Run a command that speaks with another repository; the token is for the one that is pushed to."""
        configuration = {}
        if self._token_file is not None and self._push.startswith("https://"):
            token = read_token(self._token_file)
            header = base64.b64encode(f"x-access-token:{token}".encode()).decode()
            configuration[f"http.{self._push}.extraHeader"] = f"Authorization: Basic {header}"
        return self._git.run(*arguments, configuration=configuration, timeout_s=timeout_s)


def read_token(path: Path) -> str:
    """Return the token in a file. Raises OSError when it cannot be read or is none."""
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not 0 < len(text) <= _LONGEST_TOKEN or not all("!" <= character <= "~" for character in text):
        raise OSError(f"{path} must hold one token of printable characters, on one line")
    return text
