"""Who has used most of the quotas, for admins."""

from flask import Blueprint, Response, current_app

from api.errors import ApiError
from api.quota_summary import most_used
from api.rate_limit import EXTENSION
from api.responses import NO_CACHE, json_response
from api.signed_in import require_admin

blueprint = Blueprint("quotas", __name__)


@blueprint.get("/api/_/quotas_summary")
def quotas_summary() -> Response:
    """List up to 20 pairs of address or account and seconds left today, lowest first, of the host that answers."""
    require_admin()
    table = current_app.extensions.get(EXTENSION)
    if table is None:
        raise ApiError(404, "Readers have no quotas here: quotas_enabled is false.")
    return json_response(most_used(table.descriptor, table.factors), cache=NO_CACHE)
