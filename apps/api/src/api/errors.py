"""Errors of the API as JSON, each with its intended status; every text ends up under the key `error`."""

from typing import Any

import structlog
from flask import Flask, Response, request
from psycopg import errors as pg_errors
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from api.metrics import DATABASE_FAILURES
from api.responses import json_response
from core.db import DatabaseUnavailable

log = structlog.get_logger(__name__)


class ApiError(Exception):
    """A request that is refused: `status`, the text for `error`, and more keys of the JSON body."""

    def __init__(
        self,
        status: int,
        message: object,
        *,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(str(message))
        self.status = status
        self.headers = headers or {}
        self.body: dict[str, object] = {"error": message, **(body or {})}


def bad_request(message: str, **extra: object) -> ApiError:
    """Return a 400 with `message` and further keys such as `hint`."""
    return ApiError(400, message, body=extra)


def too_slow(narrow: str) -> ApiError:
    """Return a 504 for a query that took too long; `narrow` says how to ask for less."""
    return ApiError(504, f"Database query error: the query took too long. {narrow}")


def register(app: Flask) -> None:
    """Install the handlers that turn every failure into JSON, and keep paths of requests out of the log."""

    def log_exception(exc_info: Any) -> None:
        # Not the path, as Flask does: the id of a probe or somebody's e-mail address may be in it.
        log.error("unexpected exception", route=request.endpoint, method=request.method, exc_info=exc_info)

    app.log_exception = log_exception  # type: ignore[method-assign]

    @app.errorhandler(ApiError)
    def on_api_error(error: ApiError) -> Response:
        response = json_response(error.body, status=error.status, cache="no-cache")
        response.headers.extend(error.headers)
        return response

    @app.errorhandler(HTTPException)
    def on_http_exception(error: HTTPException) -> Response | HTTPException:
        if isinstance(error, RequestRedirect) or error.code is None or error.code < 400:
            return error
        response = json_response({"error": str(error)}, status=error.code, cache="no-cache")
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                response.headers[name] = value
        return response

    @app.errorhandler(DatabaseUnavailable)
    def on_no_database(error: DatabaseUnavailable) -> Response:
        DATABASE_FAILURES.labels("unavailable").inc()
        log.error("database unavailable", error=str(error))
        body = {"error": "Database query error: the database cannot be reached. Try again in a minute."}
        response = json_response(body, status=503, cache="no-cache")
        response.headers["Retry-After"] = "60"
        return response

    @app.errorhandler(pg_errors.QueryCanceled)
    def on_slow_query(_error: Exception) -> Response:
        DATABASE_FAILURES.labels("timeout").inc()
        log.warning("query took too long")
        return on_api_error(too_slow("Ask for less, or try again later."))

    @app.errorhandler(pg_errors.LockNotAvailable)
    @app.errorhandler(pg_errors.DeadlockDetected)
    @app.errorhandler(pg_errors.SerializationFailure)
    @app.errorhandler(pg_errors.InsufficientResources)
    @app.errorhandler(pg_errors.DiskFull)
    @app.errorhandler(pg_errors.OutOfMemory)
    @app.errorhandler(pg_errors.ConfigurationLimitExceeded)
    def on_busy_database(error: pg_errors.Error) -> Response:
        """What the server refuses for the moment: locks, conflicts on a standby, memory, room for sorting."""
        DATABASE_FAILURES.labels("refused").inc()
        log.warning("query refused by the database", sqlstate=error.sqlstate, error=type(error).__name__)
        text = "Database query error: the database has no room for this query now. Ask for less, or try again later."
        return on_api_error(ApiError(503, text, headers={"Retry-After": "60"}))

    @app.errorhandler(pg_errors.Error)
    def on_query_error(error: pg_errors.Error) -> Response:
        DATABASE_FAILURES.labels("query").inc()
        # The server's message may quote parameters, which are none of the log's business.
        log.error("query failed", sqlstate=error.sqlstate, error=type(error).__name__)
        return json_response({"error": "Database query error"}, status=500, cache="no-cache")
