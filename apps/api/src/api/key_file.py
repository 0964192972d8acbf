"""Keys that tokens are signed with: one file, one key a line. The first signs, all are accepted, so keys are replaced
without ending what the ones before them signed.

    keys = KeyFile(Path("/etc/ooni/session_keys"), create=False)
    token = encode({"aud": "user_auth", "exp": …}, keys)
    claims = decode(token, keys, audience="user_auth", required=("aud", "exp"))
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import structlog

from api.watched_file import WatchedFile

LEEWAY_S = 300
"""Difference between the clocks of two hosts that is put up with, in seconds."""

MAX_LENGTH = 2000
"""Longest text that may be a token, in characters; ours have between 130 and 700."""

_ALGORITHM = "HS256"
_RETRY_S = 10.0  # after the file could not be made
_SHORTEST_KEY = 32  # characters; RFC 7518 wants 256 bits for HS256
_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)

log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """There is no key to sign or check tokens with; the text says what to do."""


class KeyFile:
    """The keys of one file, which is read again when it changes."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Take the file with the keys.

        Args:
            path: one key a line, at least 32 printable characters each; lines that start with # do not count.
            create: make the file with a random key when it is not there. All processes of a host end up with the same.
        """
        self._path = path
        self._create = create
        self._lock = threading.Lock()
        self._retry_at = 0.0
        # A host that nobody asks for tokens makes no key.
        self._file = None if create else WatchedFile(path, read_keys)

    def keys(self) -> tuple[str, ...]:
        """Return the keys, the one that signs first. Raises KeysUnavailable."""
        file = self._file
        keys = None if file is None else file.current()
        if keys is None and self._create:
            file = self._with_file()
            keys = file.current()
        if keys is None or file is None:
            raise KeysUnavailable(f"There is no usable key in {self._path}.")
        return keys

    def _with_file(self) -> WatchedFile[tuple[str, ...]]:
        """Make the file with the key if it is not there; return it, watched."""
        with self._lock:
            created = False
            if time.monotonic() >= self._retry_at:
                self._retry_at = time.monotonic() + _RETRY_S
                try:
                    created = create_key_file(self._path)
                except OSError as error:
                    log.error("no key for tokens", path=str(self._path), problem=error.strerror)
            if self._file is None or created:
                self._file = WatchedFile(self._path, read_keys)
            return self._file


def encode(claims: dict[str, Any], keys: KeyFile) -> str:
    """Return a JWT with these claims, signed by the first key. Raises KeysUnavailable."""
    return jwt.encode(claims, keys.keys()[0], algorithm=_ALGORITHM)


def decode(token: str, keys: KeyFile, *, audience: str, required: Sequence[str]) -> dict[str, Any]:
    """Return the claims of a token for `audience` that has at least the claims `required`.

    Raises:
        jwt.InvalidTokenError: it is none, or not a good one; `InvalidSignatureError` when no key fits, `DecodeError`
            when it is no token at all, `ExpiredSignatureError`, `MissingRequiredClaimError`, `InvalidAudienceError`.
        KeysUnavailable: there are no keys to check with.
    """
    accepted = keys.keys()
    if len(token) > MAX_LENGTH or not token.isascii():
        raise jwt.DecodeError("Not a token.")
    for key in accepted[:-1]:
        try:
            return _decode(token, key, audience, required)
        except jwt.InvalidSignatureError:
            continue
    return _decode(token, accepted[-1], audience, required)


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys in a file. Raises ValueError when there is none, or one that is too weak, OSError."""
    lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError("there is no key in it. Write one of 64 random characters, or delete the file to get one.")
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST_KEY or not _KEY.fullmatch(key):
            raise ValueError(f"key {number} is not {_SHORTEST_KEY} or more printable characters without spaces.")
    return keys


def create_key_file(path: Path) -> bool:
    """Write a random key to `path`, mode 0600, unless there is a file already; returns whether this call made it.

    Processes that do this at the same time all end up with the key of one of them: the file appears whole, by a link.

    Raises:
        OSError: the directory cannot be written.
    """
    if path.exists():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        draft.unlink()
    return True


def _decode(token: str, key: str, audience: str, required: Sequence[str]) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=audience,
            leeway=LEEWAY_S,
            options={"require": list(required), "strict_aud": True},
        )
    except (RecursionError, OverflowError, TypeError):  # claims that are no numbers, or such that no clock has
        raise jwt.DecodeError("No token of ours.") from None
    return claims
