"""Small routes for operators and monitoring."""

from flask import Blueprint, Response

from api.responses import json_response

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def health() -> Response:
    """Whether this process answers; it checks nothing else, since measurements are taken without a database too."""
    return Response("UP", mimetype="text/html")


@blueprint.get("/invalidpath")
def invalid_path() -> Response:
    """A path that is always missing; monitoring uses it to see a 404."""
    return json_response({"error": 404}, status=404, cache="no-cache")
