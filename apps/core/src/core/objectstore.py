"""The object store: a local directory or S3, behind one interface.

    store = open_store("s3://bucket/prefix", endpoint="https://s3.example.org")   # cheap: connects at first use
    store.put("jsonl/a.gz", path)          # durable when it returns; safe to repeat
    store.get_range("jsonl/a.gz", 100, 20)

Make the store anywhere, use it only after the fork: the library behind it runs threads, and these do not survive one.
"""

import hashlib
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

MAX_KEY = 1024  # bytes, the limit of S3
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=60)  # one HTTP request; a large upload is several
RETRY_TIMEOUT = timedelta(seconds=60)  # from the first attempt; then the caller decides
MAX_RETRIES = 4
PART_BYTES = 16 * 1024 * 1024
PARTS_AT_ONCE = 4  # PART_BYTES times this is the memory that one upload needs
CHUNK_BYTES = 1024 * 1024
LISTED_AT_ONCE = 1000

_SEGMENT = re.compile(r"[A-Za-z0-9._=+@~-]+", re.ASCII)

T = TypeVar("T")

_first_user: int | None = None  # process that started the library's threads


class StoreError(Exception):
    """The object store cannot do what was asked; the text says why and what to do."""


class ObjectNotFound(StoreError):
    """There is no such object."""


class StoreUnavailable(StoreError):
    """The store does not answer, refuses the credentials or has no space. The same call may succeed later."""


class InvalidKey(StoreError):
    """The text is not a key of this store (empty parts, `..`, a leading slash, odd characters, too long)."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its content."""

    key: str
    size: int  # bytes
    modified: datetime  # UTC


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds, as somebody who has read all of it knows it."""

    size: int  # bytes
    sha256: str  # hexadecimal


class ObjectStore:
    """Objects by key. Safe to share between threads. Every method raises StoreUnavailable, InvalidKey."""

    def __init__(self, client: Callable[[], LocalStore | S3Store], name: str, root: Path | None = None) -> None:
        """Use `open_store`. `root`: the directory, when the store is local."""
        self._make_client = client
        self._client: LocalStore | S3Store | None = None
        self._lock = threading.Lock()
        self._root = root
        self.name = name

    def put(self, key: str, path: Path) -> None:
        """Store the file `path` under `key`, atomically, replacing what is there; durable when it returns.

        Every request to S3 carries the SHA-256 of what it brings, which the service checks before it stores anything.
        `content` tells afterwards what lies there. Raises OSError when `path` itself cannot be read.
        """
        _check(key)
        with open(path, "rb"):
            pass  # the caller's file is the caller's error, not the store's
        if self._root is not None:
            self._put_local(self._root, key, path)
            return
        try:
            self._call(
                lambda client: obstore.put(client, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE),
                key,
            )
        except ObjectNotFound as error:  # of an upload this can only mean the bucket
            raise StoreUnavailable(
                f"The object store {self.name} does not exist. Create the bucket or correct the address."
            ) from error

    def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectNotFound."""
        _check(key)
        return self._call(lambda client: obstore.get(client, key).bytes().to_bytes(), key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises ObjectNotFound; StoreError when the object ends before that."""
        _check(key)
        if offset < 0 or length < 0:
            raise ValueError(f"offset {offset} and length {length} must not be negative")
        if length == 0:
            return b""
        try:
            content = self._call(lambda client: obstore.get_range(client, key, start=offset, length=length), key)
        except StoreUnavailable:
            self._check_size(key, offset + length)  # a range past the end is an error like any other in some stores
            raise
        if len(content) != length:
            self._check_size(key, offset + length)
            raise StoreUnavailable(f"The object store {self.name} gave {len(content)} of {length} bytes of {key}.")
        return content.to_bytes()

    def chunks(self, key: str) -> Iterator[bytes]:
        """The whole object in pieces of a megabyte or so, in memory that does not grow with it. Raises ObjectNotFound.

        It may fail between two pieces. Begin again then: the pieces are those of one version of the object.
        """
        _check(key)
        stream = self._call(lambda client: iter(obstore.get(client, key).stream(min_chunk_size=CHUNK_BYTES)), key)
        while (piece := self._call(lambda _: next(stream, None), key)) is not None:
            yield bytes(piece)

    def content(self, key: str) -> Content:
        """Read the whole object and tell its size and checksum. Raises ObjectNotFound."""
        digest, size = hashlib.sha256(), 0
        for piece in self.chunks(key):
            digest.update(piece)
            size += len(piece)
        return Content(size, digest.hexdigest())

    def _check_size(self, key: str, needed: int) -> None:
        info = self.head(key)
        if info is None:
            raise self._not_found(key)
        if info.size < needed:
            raise StoreError(
                f"Object {key} in {self.name} ends after {info.size} bytes, but {needed} are needed. "
                "The object, or the row that points into it, is damaged."
            )

    def head(self, key: str) -> ObjectInfo | None:
        """Size and time of an object, None when there is none."""
        _check(key)
        try:
            found = self._call(lambda client: obstore.head(client, key), key)
        except ObjectNotFound:
            return None
        return ObjectInfo(found["path"], found["size"], found["last_modified"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below `prefix`, which stands for whole path segments (`a/b` has a/b/c, not a/bc), by key.

        In memory that does not grow with their number. An outage halfway is an error, never an early end.
        """
        prefix = prefix.rstrip("/")
        if prefix:
            _check(prefix)
        if self._root is not None:
            yield from self._list_local(self._root, prefix)
            return
        # S3 lists by key, in the order of bytes.
        listing = self._call(
            lambda client: iter(obstore.list(client, prefix or None, chunk_size=LISTED_AT_ONCE)), prefix
        )
        while (chunk := self._call(lambda _: next(listing, None), prefix)) is not None:
            for entry in chunk:
                yield ObjectInfo(entry["path"], entry["size"], entry["last_modified"])

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        _check(key)
        try:
            self._call(lambda client: obstore.delete(client, key), key)
        except ObjectNotFound:
            return

    def _list_local(self, root: Path, prefix: str) -> Iterator[ObjectInfo]:
        def walk(directory: Path, key: str) -> Iterator[ObjectInfo]:
            try:
                with os.scandir(directory) as entries:
                    # A directory sorts as its name with a slash, as its objects do.
                    found = sorted((f"{e.name}/" if e.is_dir() else e.name) for e in entries if "#" not in e.name)
            except (FileNotFoundError, NotADirectoryError):
                return
            for name in found:
                if name.endswith("/"):
                    yield from walk(directory / name, f"{key}{name}")
                    continue
                try:
                    status = (directory / name).stat()
                except FileNotFoundError:  # deleted meanwhile
                    continue
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                yield ObjectInfo(f"{key}{name}", status.st_size, modified)

        self._connected()  # makes the directory the first time
        try:
            yield from walk(root / prefix, f"{prefix}/" if prefix else "")
        except OSError as error:
            raise StoreUnavailable(
                f"The object store {self.name} cannot be listed: {error.strerror}. Check its permissions and its disk."
            ) from error
        if not root.is_dir():
            raise self._gone()

    def _put_local(self, root: Path, key: str, path: Path) -> None:
        target = root / key
        # Names that end like this are never listed: the library takes them for unfinished uploads, and so do we.
        unfinished = target.with_name(f"{target.name}#{os.getpid()}{next(_numbers):06}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "rb") as source, open(unfinished, "xb") as copy:
                shutil.copyfileobj(source, copy, 1024 * 1024)
                copy.flush()
                os.fsync(copy.fileno())
            unfinished.replace(target)
            for directory in (target.parent, *target.parent.parents):
                _fsync_directory(directory)
                if directory == root.parent:
                    break
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise StoreUnavailable(
                f"The object store {self.name} did not take {key}: {error.strerror}. "
                "Check its free space and permissions."
            ) from error

    def _call(self, operation: Callable[[LocalStore | S3Store], T], key: str) -> T:
        client = self._connected()
        try:
            return operation(client)
        except (NotFoundError, FileNotFoundError) as error:  # the library raises either
            if self._root is not None and not self._root.is_dir():
                raise self._gone() from error
            raise self._not_found(key) from error
        except InvalidPathError as error:
            raise InvalidKey(f"{key!r} is not a key of {self.name}.") from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise StoreUnavailable(
                f"The object store {self.name} refuses access: {_said(error)}. Check the access key and the rights."
            ) from error
        except (BaseError, OSError) as error:
            raise StoreUnavailable(
                f"The object store {self.name} is not available: {_said(error)}. Check that it runs and its address."
            ) from error

    def _connected(self) -> LocalStore | S3Store:
        global _first_user  # noqa: PLW0603 - the library's threads belong to the process, not to an object
        pid = os.getpid()
        if _first_user not in (None, pid):
            raise RuntimeError("The object store was used before the fork. Use it in the workers only.")
        with self._lock:
            _first_user = pid
            if self._client is None:
                try:
                    self._client = self._make_client()
                except (BaseError, OSError) as error:
                    raise StoreUnavailable(
                        f"The object store {self.name} cannot be opened: {_said(error)}. "
                        "Check its address and settings."
                    ) from error
            return self._client

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"The object store {self.name} is gone: there is no such directory. Mount or restore it."
        )

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"There is no object {key} in {self.name}.")


def open_store(
    url: str, *, endpoint: str = "", region: str = "", access_key_id: str = "", secret_access_key: str = ""
) -> ObjectStore:
    """The store at `url`: `file:///directory` (made when absent) or `s3://bucket[/prefix]`.

    The options are for S3. What is left empty comes from the usual AWS_ variables of the environment, else from the
    instance's role; `endpoint` is for services other than Amazon's (http:// is allowed, for a service on this host).
    Raises StoreError when the address is not one.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        root = Path(unquote(parts.path)).absolute()
        return ObjectStore(lambda: LocalStore(root, mkdir=True), url, root)
    if parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc and not parts.query:
        prefix = parts.path.strip("/")
        if prefix:
            _check(prefix)
        given = {
            "endpoint": endpoint,
            "region": region,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
        }
        return ObjectStore(lambda: _s3(parts.netloc, prefix, given), url)
    raise StoreError(
        f"{url!r} is not the address of an object store. Write file:///directory or s3://bucket/prefix "
        "(credentials go into the environment, not into the address)."
    )


def _s3(bucket: str, prefix: str, given: dict[str, str]) -> S3Store:
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": given["endpoint"].startswith("http://"),
            "connect_timeout": CONNECT_TIMEOUT,
            "timeout": REQUEST_TIMEOUT,
        },
        checksum_algorithm="SHA256",
        retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT},
        **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # all of these are text
    )


_numbers = itertools.count()


def _said(error: Exception) -> str:
    """What the library says, without its long debug dump."""
    return " ".join(str(error).partition("\n\nDebug source")[0].split())[:300].rstrip(".")


def _check(key: str) -> None:
    segments = key.split("/")
    if len(key) > MAX_KEY or not all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in segments):
        raise InvalidKey(
            f"{key[:200]!r} is not a key of an object. Keys are parts of letters, digits and ._=+@~- joined by slashes."
        )


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
