"""Accounts are known by a keyed hash of the e-mail address, so that no address is stored.

The same address gives the same account for good, on every host with the same key, and another one at other deployments.
Who has the database alone can not try out addresses. The key can not be replaced: every account would be a new one.
"""

import hashlib
import re
from pathlib import Path

from api.key_file import KeysUnavailable, create_key_file
from api.watched_file import WatchedFile

KEY_FILE = "account_id_key"
"""Name of the file in `state_directory` that a host makes for itself."""

LONGEST_ADDRESS = 254
"""Longest e-mail address, in characters (RFC 5321, section 4.5.3.1.3, without the brackets)."""

_ADDRESS = re.compile(
    r"[0-9a-z_.+-]{1,64}@(?:[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?\.)+[a-z](?:[0-9a-z-]{0,61}[0-9a-z])?", re.ASCII
)
_KEY = re.compile(r"[\x21-\x7e]{16,64}", re.ASCII)  # BLAKE2b takes 64 bytes at most


def normal_address(text: str) -> str | None:
    """Return an e-mail address as it is hashed, in lower case and without blanks around it; None for no address.

    Addresses have a local part of letters, digits and `_.+-`, and a domain with a dot, as the wire contract says.
    """
    address = text.strip().lower()
    return address if len(address) <= LONGEST_ADDRESS and _ADDRESS.fullmatch(address) else None


class AccountIds:
    """Makes the identifiers of accounts with the key in one file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Take the file with the key: a line of 16 to 64 printable characters; `create` makes it when it is missing."""
        self._path = path
        self._create = create
        self._file: WatchedFile[bytes] | None = None

    def of(self, address: str) -> str:
        """Return the identifier, 32 hexadecimal digits, of an address that `normal_address` returned.

        Raises:
            KeysUnavailable: there is no usable key.
        """
        return hashlib.blake2b(address.encode(), digest_size=16, key=self._key()).hexdigest()

    def _key(self) -> bytes:
        if self._file is None:
            try:
                if self._create:
                    create_key_file(self._path)
            except OSError as error:
                raise KeysUnavailable(f"{self._path} cannot be made: {error.strerror}.") from error
            self._file = WatchedFile(self._path, read_key)
        key = self._file.current()
        if key is None:
            raise KeysUnavailable(f"There is no usable key in {self._path}.")
        return key


def read_key(path: Path) -> bytes:
    """Return the key in a file. Raises ValueError when it is not one good key, OSError."""
    lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise ValueError("it must hold one key of 16 to 64 printable characters without spaces, on one line.")
    return keys[0].encode("ascii")
