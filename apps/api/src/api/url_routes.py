"""Test lists over HTTP: what old probes fetch, and how the order of URLs comes about."""

import csv
import io
import re

import psycopg
import structlog
from flask import Blueprint, Response, request

from api.errors import ApiError, bad_request
from api.metrics import TEST_LIST_URLS
from api.params import Params
from api.priorities import ANY, Rule, TestUrl
from api.responses import json_response
from api.services import services
from api.url_overview import COLUMNS
from core.db import DatabaseUnavailable
from core.testlists import GLOBAL

blueprint = Blueprint("test_lists", __name__)

EVERYTHING = 9999
"""The limit that -1 stands for where probes ask."""

_MAX_AGE_1 = "max-age=1"
_MAX_AGE_0 = "max-age=0"
_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)
_CATEGORY = re.compile(r"[A-Za-z]{1,20}", re.ASCII)
_NETWORK = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)
_GREATEST_NETWORK = 2**32 - 1

log = structlog.get_logger(__name__)


@blueprint.get("/api/v1/test-list/urls")
def urls() -> Response:
    """Return the URLs for a country, the global list for what is none.

    Probes ask: what cannot be understood otherwise is answered with an empty object.
    """
    try:
        params = Params(request)
        cc = params.text("country_code") or params.text("probe_cc") or GLOBAL
        cc = cc.upper() if _COUNTRY.fullmatch(cc) else GLOBAL
        categories = _categories(params, "category_codes", "category_code")
        limit = _limit(params, EVERYTHING)
    except ApiError as error:
        log.info("test list not understood", error=str(error))
        return json_response({}, cache=_MAX_AGE_0)
    selection = services().url_selection
    if params.flag("debug"):
        results = [_explained(*found) for found in selection.network(cc, 0).explained(categories, limit)]
    else:
        results = [
            {"category_code": url.category_code, "country_code": url.country_code, "url": url.url}
            for url in selection.listing(cc, categories, limit)
        ]
    TEST_LIST_URLS.observe(len(results))
    metadata = {"count": len(results), "current_page": -1, "limit": -1, "next_url": "", "pages": 1}
    return json_response({"metadata": metadata, "results": results}, cache=_MAX_AGE_1)


@blueprint.get("/api/_/debug_prioritization")
def debug_prioritization() -> Response:
    """Return how the URLs for one network are ranked: the result, all candidates, the rules that were considered."""
    params = Params(request)
    cc = _country(params, "probe_cc")
    network = services().url_selection.network(cc, _asn(params, "probe_asn"))
    candidates, counts = network.counts()
    limit = _limit(params, len(candidates))
    items = [_explained(*found) for found in network.explained(_categories(params, "category_codes"), limit)]
    entries = [{**entry._asdict(), "msmt_cnt": count} for entry, count in zip(candidates.entries, counts, strict=True)]
    rules = [_shown(rule) for rule in candidates.rules.considered(cc)]
    return json_response({"entries": entries, "prio_rules": rules, "test_items": items}, cache=_MAX_AGE_0)


@blueprint.get("/api/_/show_countries_prioritization")
def show_countries_prioritization() -> Response:
    """Return every entry of every list with its priority and how it fared in the last week, as JSON or CSV."""
    params = Params(request)
    wanted = (params.text("format") or "JSON").upper()
    if wanted not in {"JSON", "CSV"}:
        raise bad_request("Invalid value in parameter format; give JSON or CSV.")
    parts = services()
    with parts.read_slots.one():
        rows = parts.url_overview.rows()
    if wanted == "JSON":
        return json_response(rows, cache=_MAX_AGE_1)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return Response(text.getvalue(), mimetype="text/csv")


@blueprint.get("/api/_/url-priorities/list")
def url_priorities() -> Response:
    """Return all rules; those of the last look at the database while it is away or slow."""
    parts = services()
    try:
        with parts.read_slots.one():
            rules = parts.url_queries.rules()
    except (DatabaseUnavailable, psycopg.Error):
        rules = parts.url_selection.lists().rules.rules
    shown = sorted((_shown(rule) for rule in rules), key=lambda rule: tuple(rule.values()))
    return json_response({"rules": shown}, cache=_MAX_AGE_1)


def _country(params: Params, name: str) -> str:
    """The parameter `name` in upper case; ZZ when it is not given."""
    text = params.text(name) or GLOBAL
    if not _COUNTRY.fullmatch(text):
        raise bad_request(f"Invalid CC value in parameter {name}; give two letters, such as IT.")
    return text.upper()


def _categories(params: Params, *names: str) -> list[str]:
    for name in names:
        found = [text.strip().upper() for text in params.texts(name)]
        if not all(map(_CATEGORY.fullmatch, found)):
            raise bad_request(f"Invalid category in parameter {name}; give codes such as NEWS, with commas between.")
        if found:
            return found
    return []


def _asn(params: Params, name: str) -> int:
    text = params.text(name)
    if text is None:
        return 0
    match = _NETWORK.fullmatch(text)
    if match is None or int(match[1]) > _GREATEST_NETWORK:
        raise bad_request(f"Invalid ASN value in parameter {name}; give a network number, such as AS1234.")
    return int(match[1])


def _limit(params: Params, everything: int) -> int:
    limit = params.integer("limit", -1)
    if limit < -1:
        raise bad_request("Invalid integer in parameter limit; give a number from 0 on, or -1 for everything.")
    return everything if limit == -1 else limit


def _explained(url: TestUrl, count: int, priority: int, weight: float) -> dict[str, object]:
    return {
        "category_code": url.category_code,
        "country_code": url.country_code,
        "url": url.url,
        "msmt_cnt": count,
        "priority": priority,
        "weight": weight,
    }


def _shown(rule: Rule) -> dict[str, str | int]:
    return {
        "category_code": rule.category_code or ANY,
        "cc": rule.cc or ANY,
        "domain": rule.domain or ANY,
        "url": rule.url or ANY,
        "priority": rule.priority,
    }
