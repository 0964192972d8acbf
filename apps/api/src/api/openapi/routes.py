"""Where the description of the API is served. Nothing in a request chooses which document is shown."""

from functools import cache

from flask import Blueprint, Response
from werkzeug.utils import redirect

from api.openapi.document import document
from api.openapi.page import page
from api.responses import to_json
from api.services import services

CACHE = "max-age=300"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page needs its own style and nothing else."""

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
