"""The files that the page of the description loads, all from this server: Swagger UI, and what mounts it."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

_OWN = files("api.openapi") / "static"
# The package is used for its files alone; its blueprint would let a request name the description to show.
_VENDOR = files("flask_swagger_ui") / "dist"

_FILES: dict[str, tuple[Traversable, str]] = {
    "apidocs.css": (_OWN / "apidocs.css", "text/css"),
    "apidocs.js": (_OWN / "apidocs.js", "application/javascript"),
    "favicon-32x32.png": (_VENDOR / "favicon-32x32.png", "image/png"),
    "swagger-ui.css": (_VENDOR / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (_VENDOR / "swagger-ui-bundle.js", "application/javascript"),
}

NAMES = tuple(_FILES)
"""Names of all files."""


def content(name: str) -> tuple[bytes, str] | None:
    """Return the bytes and the media type of a file, None when there is no such one."""
    if name not in _FILES:
        return None
    path, media = _FILES[name]
    return path.read_bytes(), media


@cache
def address(name: str) -> str:
    """Return where the page loads a file from: another address when the file is another one."""
    return f"assets/{name}?v={version(name)}"


@cache
def version(name: str) -> str:
    """Return what stands for the content of a file in its address."""
    path, _ = _FILES[name]
    return sha256(path.read_bytes()).hexdigest()[:12]
