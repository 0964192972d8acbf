"""Where the description of the API is served. Nothing in a request chooses which document is shown."""

from functools import cache

from flask import Blueprint, Response, request
from werkzeug.utils import redirect

from api.errors import ApiError
from api.openapi import assets
from api.openapi.document import document
from api.openapi.page import page
from api.responses import NO_CACHE, to_json
from api.services import services

CACHE = "max-age=300"
ASSET_CACHE = "max-age=86400"
"""For files whose address changes with them, asked for at the address of what is served."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page needs this server and nothing else; Swagger UI has its icons inside its style."""

blueprint = Blueprint("openapi", __name__)


@blueprint.get("/openapi.json")
@blueprint.get("/apispec_1.json")
def openapi() -> Response:
    """The OpenAPI document, at its usual and at its older address."""
    response = Response(_json(services().settings.base_url), mimetype="application/json")
    response.headers["Cache-Control"] = CACHE
    return response


@blueprint.get("/apidocs/", strict_slashes=True)
def apidocs() -> Response:
    """The document for people."""
    response = Response(_html(services().settings.base_url), mimetype="text/html")
    response.headers["Cache-Control"] = CACHE
    response.headers["Content-Security-Policy"] = POLICY
    return response


@blueprint.get("/apidocs/assets/<name>", strict_slashes=True)
def apidocs_asset(name: str) -> Response:
    """A file that the page loads."""
    found = assets.content(name)
    if found is None:
        raise ApiError(404, f"There is no such file. The page loads {', '.join(assets.NAMES)}.")
    content, media = found
    response = Response(content, mimetype=media)
    # While a release is rolled out, the page of one host asks another one: its file must not be kept as the other's.
    current = request.args.get("v") == assets.version(name)
    response.headers["Cache-Control"] = ASSET_CACHE if current else NO_CACHE
    return response


@blueprint.get("/apidocs", strict_slashes=True)
def apidocs_without_slash() -> Response:
    """Lead to the page."""
    return redirect("/apidocs/", 302, Response)  # type: ignore[return-value]  # of the class given


@cache
def _json(base_url: str) -> str:
    return to_json(document(base_url))


@cache
def _html(base_url: str) -> str:
    return page(document(base_url))
