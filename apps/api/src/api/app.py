"""The Flask application factory."""

import time

from flask import Flask, Response, g, request

from api import (
    access_token_routes,
    account_roles,
    aggregation,
    audit_routes,
    auth_v2,
    check_in,
    conditional,
    cors,
    discovery,
    engine_descriptor,
    errors,
    feedback,
    geolookup,
    health,
    incidents,
    login,
    measurement_list,
    measurements,
    pages,
    probe_data,
    probe_identity,
    quota_routes,
    rate_limit,
    reports,
    responses,
    run_links_v1,
    run_links_v2,
    signed_in,
    statistics,
    submit,
    testlist_routes,
    token_accounts,
    torsf,
    url_priorities_update,
    url_routes,
)
from api.config import ApiSettings, exported_path, load
from api.metrics import REQUEST_SECONDS, REQUESTS
from api.openapi import routes as openapi
from api.request_body import discard_rest
from api.services import EXTENSION, build, services

BLUEPRINTS = (
    health.blueprint,
    discovery.blueprint,
    check_in.blueprint,
    probe_data.blueprint,
    probe_identity.blueprint,
    login.blueprint,
    account_roles.blueprint,
    auth_v2.blueprint,
    geolookup.blueprint,
    reports.blueprint,
    submit.blueprint,
    url_routes.blueprint,
    url_priorities_update.blueprint,
    testlist_routes.blueprint,
    measurement_list.blueprint,
    measurements.blueprint,
    *statistics.BLUEPRINTS,
    aggregation.blueprint,
    torsf.blueprint,
    incidents.blueprint,
    feedback.blueprint,
    access_token_routes.blueprint,
    audit_routes.blueprint,
    run_links_v1.blueprint,
    run_links_v2.blueprint,
    engine_descriptor.blueprint,
    quota_routes.blueprint,
    pages.blueprint,
    openapi.blueprint,
)


def create_app(settings: ApiSettings | None = None, *, slot: int = 0) -> Flask:
    """Build the application of one worker process.

    Args:
        settings: what to run with; None loads the configuration file and the environment.
        slot: number of the worker among those of the host, see `clock`.

    Raises:
        ConfigError: a setting is wrong.
    """
    app = Flask(__name__, static_folder=None)
    app.json = responses.ContractJson(app)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect would turn a probe's POST into a GET
    settings = settings or load(exported_path())
    app.extensions[EXTENSION] = build(settings, slot)
    errors.register(app)
    cors.register(app, settings.cors_origins)
    _measure(app)
    token_accounts.register(app)
    rate_limit.register(app, settings)
    signed_in.register(app)
    conditional.register(app)  # runs before the quotas, which see the status that is sent
    _discard_unread_bodies(app, settings.max_received_bytes)
    _watch_databases(app)
    _forbid_guesses(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


def _discard_unread_bodies(app: Flask, limit: int) -> None:
    @app.after_request
    def discard(response: Response) -> Response:
        if request.method in {"POST", "PUT", "PATCH"}:
            discard_rest(request.environ, limit)
        return response


def _watch_databases(app: Flask) -> None:
    """Any request, also one that looks nothing up, is the occasion to notice that a geolocation database changed."""

    @app.before_request
    def look() -> None:
        services().geolocation.refresh()


def _forbid_guesses(app: Flask) -> None:
    """Have no browser take a reply for something else than it says: what people wrote may look like a page."""

    @app.after_request
    def forbid(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _measure(app: Flask) -> None:
    @app.before_request
    def start_clock() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def observe(response: Response) -> Response:
        endpoint = (request.endpoint or "unknown").rpartition(".")[2]
        REQUESTS.labels(endpoint, f"{response.status_code // 100}xx").inc()
        if "started" in g:
            REQUEST_SECONDS.labels(endpoint).observe(time.perf_counter() - g.started)
        return response
