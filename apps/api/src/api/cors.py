"""Cross-origin headers: which pages of other origins may read replies, errors and preflights included.

By default any page may, with the constant `*`, so that caches keep one copy of a reply for everybody. When the setting
`cors_origins` names origins, a reply echoes the origin if it is one of them, and says with `Vary` that it does; for
others the header is missing and nothing else changes. Credentials are never allowed: nobody is known by cookies here.
"""

import re

from flask import Flask, Response, request

ANY = "*"
MAX_AGE_S = 86_400
"""How long a browser may remember the answer to a preflight, in seconds; some take less at most."""

EXPOSED = "ETag, Retry-After, X-Cache-Status, X-RateLimit-Remaining"
"""Headers of replies that pages may read beside those that every page may."""

_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_ALLOWED_HEADERS = "authorization, content-type"
_HEADER_LIST = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~, -]{1,1000}", re.ASCII)
_ORIGIN = re.compile(r"https?://((\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class Origins:
    """The origins whose pages may read replies."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        """Take `*`, or origins like https://a.example.org and https://*.example.org, which means any depth below it.

        Raises:
            ValueError: naming what is neither.
        """
        if ANY in patterns and len(patterns) > 1:
            raise ValueError("it holds * beside others; give * alone for every origin, or leave it out")
        for pattern in patterns:
            if pattern != ANY and not _ORIGIN.fullmatch(pattern):
                raise ValueError(
                    f"it holds {pattern!r}; write an origin in lower case and without a path, like "
                    "https://explorer.example.org or https://*.example.org"
                )
        self.any = ANY in patterns
        parts = (re.escape(pattern).replace(r"\*\.", r"([a-z0-9_-]+\.)+") for pattern in patterns)
        self._allowed = re.compile("|".join(parts) or r"(?!)", re.ASCII)

    def __contains__(self, origin: str) -> bool:
        return self.any or self._allowed.fullmatch(origin) is not None


def register(app: Flask, patterns: tuple[str, ...]) -> None:
    """Add cross-origin headers to every reply, errors included, and answer preflights of any path."""
    origins = Origins(patterns)

    @app.before_request
    def preflight() -> Response | None:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight_reply(origins)
        return None

    @app.after_request
    def allow_origin(response: Response) -> Response:
        _allow(response, origins)
        return response


def _allow(response: Response, origins: Origins) -> None:
    if origins.any:
        allowed = ANY
    else:
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if origin not in origins:
            return
        allowed = origin
    response.headers["Access-Control-Allow-Origin"] = allowed
    if "Access-Control-Allow-Methods" not in response.headers:  # else a preflight, which nobody reads
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _preflight_reply(origins: Origins) -> Response:
    response = Response(b"", status=200, mimetype="text/html")
    if request.headers.get("Origin", "") not in origins:
        return response
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    response.headers["Access-Control-Allow-Headers"] = wanted if _HEADER_LIST.fullmatch(wanted) else _ALLOWED_HEADERS
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return response
