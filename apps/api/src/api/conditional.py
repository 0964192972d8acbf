"""Conditional requests: replies to GET carry an ETag, and who has the same already is answered 304 without a body.

A route whose reply is known by something better than its bytes sets the tag itself (`response.set_etag(uid)`); members
that differ each time, such as the duration of a query, are left out of it by `responses.json_response(volatile=…)`. All
other tags are computed here from the body. They are weak: the proxy in front compresses, which changes bytes but not
what they say, and would make them weak itself. Replies that nobody may keep, errors and streams have none.
"""

from flask import Flask, Response, request

from api.responses import tag_of


def register(app: Flask) -> None:
    """Tag the replies of `app`. After the quotas, so that they see the status that is sent."""
    app.after_request(conditional)


def conditional(response: Response) -> Response:
    """Add the tag that is missing, and answer 304 when the client has named the tag in If-None-Match."""
    if request.method not in {"GET", "HEAD"} or response.status_code != 200 or _nobody_may_keep(response):
        return response
    tag, _ = response.get_etag()
    if tag is None:
        if response.is_streamed or response.direct_passthrough:
            return response
        tag = tag_of(response.get_data())
        response.set_etag(tag, weak=True)
    if request.if_none_match.contains_weak(tag):
        response.status_code = 304  # Werkzeug leaves out the headers that describe a body
        response.set_data(b"")
    return response


def _nobody_may_keep(response: Response) -> bool:
    cache = response.cache_control
    return bool(cache.no_cache or cache.no_store)
