"""Heavy questions are referred to where nginx keeps nothing, once, and only if nginx offers it."""

import pytest
from flask import Flask
from werkzeug.test import TestResponse

HEAVY = "/api/v1/aggregation?axis_x=probe_cc&since=2020-01-01&until=2024-01-01&ooni_run_link_id=10001"
LIGHT = "/api/v1/aggregation?axis_x=probe_cc&since=2020-01-01&until=2024-01-01"


def ask(app: Flask, path: str, offered: str | None = "/uncached", method: str = "GET") -> TestResponse:
    return app.test_client().open(path, method=method, headers={"X-Uncached-At": offered} if offered else {})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_heavy_question_is_referred(module_app: Flask, method: str) -> None:
    response = ask(module_app, HEAVY, method=method)
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["X-Accel-Redirect"] == "/uncached"
    assert response.headers["Cache-Control"] == "max-age=0, no-cache", "nginx would keep that it is elsewhere"
    assert "ETag" not in response.headers


@pytest.mark.parametrize(
    ("path", "offered"),
    [(HEAVY, None), (HEAVY, ""), (HEAVY, "/health"), (HEAVY, "//evil.example"), (LIGHT, "/uncached")],
)
def test_everything_else_is_answered_at_once(module_app: Flask, path: str, offered: str | None) -> None:
    response = ask(module_app, path, offered)
    assert (response.status_code, response.json["result"]) == (200, [])
    assert "X-Accel-Redirect" not in response.headers
