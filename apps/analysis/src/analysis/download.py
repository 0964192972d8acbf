"""One file from the web, within limits."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

MAX_BYTES = 256 * 1024 * 1024
TIMEOUT_S = 60.0
"""Longest silence of the server, in seconds."""

_CHUNK = 1024 * 1024


class DownloadError(Exception):
    """The file is not to be had; the text says why."""


@contextmanager
def downloaded(url: str, *, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """Fetch `url` into a temporary file that exists for the duration of the block.

    Raises:
        DownloadError: it is no http address, the server does not give it, it is cut off or larger than `max_bytes`.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is no address that begins with https://.")
    with TemporaryDirectory(prefix="analysis-") as directory:
        path = Path(directory) / "download"
        try:
            _fetch(url, path, max_bytes)
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise DownloadError(f"{url} cannot be fetched: {error}. Nothing was changed.") from error
        yield path


def _fetch(url: str, path: Path, max_bytes: int) -> None:
    size = 0
    with urllib.request.build_opener().open(url, timeout=TIMEOUT_S) as reply, path.open("wb") as file:
        while chunk := reply.read(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise DownloadError(
                    f"{url} is larger than {max_bytes // 1024**2} MiB, so it is no archive of test lists."
                )
            file.write(chunk)
        expected = reply.headers.get("Content-Length")
    if expected is not None and size != int(expected):
        raise DownloadError(f"{url} was cut off after {size} of {expected} bytes. Nothing was changed.")
