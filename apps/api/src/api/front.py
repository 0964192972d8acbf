"""What the API arranges with the proxy in front of it: heavy questions are asked outside of its cache.

nginx finishes a request whose answer it may keep, whether or not the client is still there, since others may ask the
same. For a question that holds up others for many seconds that is wrong: it should end with its client. nginx offers a
place without a cache in a header; a request that is referred to it comes again from there, and ends with its client.
"""

from flask import Response, request
from werkzeug.exceptions import HTTPException

from api.responses import NO_CACHE

OFFER = "X-Uncached-At"
"""Header of requests in which nginx names the place; absent from those that come from there."""

_PLACE = "/uncached"


def leave_cache() -> None:
    """Let nginx ask again from where it keeps nothing; returns where there is no nginx, or when it has done so.

    Raises:
        HTTPException: with the reply that says so; no client gets to see it.
    """
    if request.method in {"GET", "HEAD"} and request.headers.get(OFFER) == _PLACE:
        headers = {"X-Accel-Redirect": _PLACE, "Cache-Control": NO_CACHE}
        raise HTTPException(response=Response(status=200, headers=headers))
