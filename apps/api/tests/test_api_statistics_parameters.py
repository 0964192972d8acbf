"""Parameters of statistics are checked before the database is asked: a request that is refused costs nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from http_routes import ROUTES

from api.app import create_app
from api.config import ApiSettings
from api.openapi import statistics

STATISTICS = [ROUTES[operation.path][0] for operation in statistics.OPERATIONS]
WITHOUT_PARAMETERS = {"global_overview", "global_overview_by_month"}
WITHOUT_FORMAT = {*WITHOUT_PARAMETERS, "asnmeta", "country_overview", "domain_metadata", "im_networks", "test_coverage"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """An API whose database is away, so that a reply other than 503 was made without it."""
    directory: Path = tmp_path_factory.mktemp("parameters")
    app: Flask = create_app(
        ApiSettings(
            db_uri="host=/nonexistent dbname=ooni",
            spool_directory=str(directory / "spool"),
            state_directory=str(directory / "state"),
            store_url=f"file://{directory}",
        )
    )
    yield app.test_client()
    app.extensions["api"].close()


def name_of(path: str) -> str:
    return path.removeprefix("/api/_/").partition("?")[0]


def with_query(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"


@pytest.mark.parametrize("path", STATISTICS, ids=name_of)
def test_a_wrong_parameter_is_refused_without_the_database(client: FlaskClient, path: str) -> None:
    if name_of(path) not in WITHOUT_FORMAT:
        refused = client.get(with_query(path, "format=xml"))
        assert refused.status_code == 400
        assert refused.get_json()["error"] == "Invalid value in parameter format; give JSON or CSV."
    if name_of(path) not in WITHOUT_PARAMETERS:
        assert client.get(with_query(path, "more=%00")).status_code == 400


def test_the_database_is_what_is_missing(client: FlaskClient) -> None:
    path = ROUTES["/api/_/countries"][0]
    assert client.get(path).status_code == 503
