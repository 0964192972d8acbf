"""Findings, which the web interface and the wire contract call incidents: the routes.

Anybody reads what is published. A draft is seen, changed and deleted by its author and by admins. What can be changed
is in `incident_changes`, what may be in a field in `incident_fields`.
"""

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from api import incident_fields as fields
from api import incident_store as store
from api.errors import bad_request
from api.incident_changes import ACTIONS, not_found
from api.incident_csv import incidents_csv
from api.json_fields import json_members
from api.params import Params
from api.reading import Row
from api.responses import NO_CACHE, json_response
from api.services import services
from api.signed_in import current_account, require_account
from api.statistics_replies import wants_csv

V = 1
MOST_VALUES = 100
"""Values of one filter in a search."""

_CC = re.compile("[A-Za-z]{2}", re.ASCII)
_ASN = re.compile("(?:AS)?([0-9]{1,10})", re.ASCII)

blueprint = Blueprint("incidents", __name__)


@blueprint.get("/api/v1/incidents/search")
def search_list_incidents() -> Response:
    """Return the findings that who asks may see, by title, as JSON or CSV."""
    params = Params(request)
    as_csv = wants_csv(params)
    only_mine = params.boolean("only_mine") or False
    filters = {column: _values(name, check) for column, (name, check) in _FILTERS.items()}
    account = current_account()
    rows: list[Row] = []
    if account is not None or not only_mine:
        rows = store.search(
            services().reader,
            account.account_id if account else None,
            everything=account is not None and account.is_admin,
            only_mine=only_mine,
            filters=filters,
        )
    found = [store.shown(row) for row in rows]
    return incidents_csv(found) if as_csv else json_response({"incidents": found, "v": V}, cache=NO_CACHE)


@blueprint.get("/api/v1/incidents/show/<incident>")
def show_incident(incident: str) -> Response:
    """Return one finding with its text, by id or slug."""
    account = current_account()
    row = store.show(
        services().reader,
        account.account_id if account else None,
        everything=account is not None and account.is_admin,
        number=_number_or_none(incident),
        slug=incident if fields.is_slug(incident) else None,
    )
    if row is None:
        raise not_found()
    return json_response({"incident": store.shown(row), "v": V}, cache=NO_CACHE)


@blueprint.post("/api/v1/incidents/<action>")
def post_update_incident(action: str) -> Response:
    """Create, update, delete, publish or unpublish a finding."""
    account = require_account()
    act = ACTIONS.get(action)
    if act is None:
        raise bad_request("Invalid request", hint=f"The action is one of {', '.join(ACTIONS)}.")
    return json_response(act(account, json_members()), cache=NO_CACHE)


def _number_or_none(text: str) -> int | None:
    try:
        return fields.number(text)
    except ValueError:
        return None


def _country(text: object) -> str:
    if not _CC.fullmatch(str(text)):
        raise ValueError("must be two letters, such as IT")
    return str(text).upper()


def _network(text: object) -> int:
    match = _ASN.fullmatch(str(text))
    return fields.network(int(match[1]) if match else None)


_FILTERS: Mapping[str, tuple[str, fields.Check]] = {
    "themes": ("theme", fields.theme),
    "ccs": ("country_code", _country),
    "asns": ("asn", _network),
    "domains": ("domain", fields.domain),
}
"""Of each filter of the store, the name of its parameter, and how its values are checked."""


def _values(name: str, check: fields.Check) -> list[Any] | None:
    """Return the values of a parameter that may be repeated, None when there is none that is not empty."""
    texts = [text.strip() for text in request.args.getlist(name)]
    found = list(dict.fromkeys(text for text in texts if text))
    if len(found) > MOST_VALUES:
        raise bad_request(f"Too many values in parameter {name}; at most {MOST_VALUES} are allowed.")
    try:
        return [check(text) for text in found] or None
    except ValueError as error:
        raise bad_request(f"Invalid value in parameter {name}: it {error}.") from None
