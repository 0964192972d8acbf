"""The page of the description: whole without scripts, and nothing that it loads is from elsewhere."""

import re
from html import escape
from html.parser import HTMLParser
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.openapi.assets import NAMES
from api.openapi.document import document

BASE = "https://api.example.org"


@pytest.fixture
def app(lone_app: Flask) -> Flask:
    return lone_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


class Page(HTMLParser):
    """Collects what a page loads, where it leads, and what would run inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._inside = tag
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in {"src", "href", "srcset", "action", "data"}:
                self.loaded.append(value or "")
            elif name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and data.strip():
            self.inline.append(data)


def test_the_page_shows_every_route_without_a_script(client: FlaskClient) -> None:
    response = client.get("/apidocs/")
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    for path, methods in document(BASE)["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in response.text
            (sample,) = operation["x-codeSamples"]
            assert escape(sample["source"]) in response.text
    for name in document(BASE)["components"]["schemas"]:
        assert f'<h3 id="{name}">' in response.text


def test_the_page_loads_its_own_files_and_nothing_else(client: FlaskClient) -> None:
    page = Page(client.get("/apidocs/").text)
    assert page.links == ["/openapi.json"]
    assert not page.tags & {"img", "iframe", "form", "object", "embed", "base", "style"}
    assert page.inline == [], "a strict policy does not let it run"
    paths = {urlsplit(urljoin("/apidocs/", address)).path for address in page.loaded}
    assert paths == {f"/apidocs/assets/{name}" for name in NAMES}
    for address in page.loaded:
        assert not urlsplit(address).netloc
        response = client.get(urljoin("/apidocs/", address))
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "max-age=86400"
        if response.mimetype == "text/css":
            urls = re.findall(r"url\(\s*[\"']?([^)\"']{0,40})", response.text)
            assert all(url.startswith("data:image/") for url in urls), urls
            assert "@import" not in response.text


def test_the_policy_of_the_page_allows_this_server_alone(client: FlaskClient) -> None:
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in client.get("/apidocs/").headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("query", ["url=https://evil.example/x.json", "urls=%5B%5D", "configUrl=https://evil.example/"])
def test_a_request_does_not_choose_the_description(client: FlaskClient, query: str) -> None:
    plain = client.get("/apidocs/")
    chosen = client.get(f"/apidocs/?{query}")
    assert chosen.data == plain.data
    script = client.get("/apidocs/assets/apidocs.js").text
    assert "queryConfigEnabled: false" in script
    assert "validatorUrl: null" in script
    assert "location.search" not in script


def test_an_address_changes_with_its_file(client: FlaskClient) -> None:
    addresses = Page(client.get("/apidocs/").text).loaded
    assert all(re.fullmatch(r"assets/[a-z0-9.-]+\?v=[0-9a-f]{12}", address) for address in addresses)
    assert len({address.rpartition("=")[2] for address in addresses}) == len(addresses)


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.js", "..%2Fassets.py", "..", "apidocs.js/", "x%00"])
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    response = client.get(f"/apidocs/assets/{name}")
    assert response.status_code == 404
    assert response.json["error"]


def test_swagger_ui_is_the_locked_one(client: FlaskClient) -> None:
    """The files are those of the package, unchanged, and of the version that the lock names."""
    vendor = files("flask_swagger_ui") / "dist"
    assert (vendor / "VERSION").read_text().strip() == f"v{version('flask-swagger-ui')}"
    served = client.get("/apidocs/assets/swagger-ui-bundle.js")
    assert served.data == (vendor / "swagger-ui-bundle.js").read_bytes()


def test_the_page_without_a_slash_leads_to_it(client: FlaskClient) -> None:
    response = client.get("/apidocs?url=https://evil.example/", headers={"Host": "evil.example"})
    assert response.status_code == 302
    assert response.headers["Location"] == "/apidocs/"
