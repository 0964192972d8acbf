"""The description of the API: complete, valid, and served whatever a request names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from api.openapi.document import OPERATIONS, TAGS, document
from api.rate_limit import is_free

BASE = "https://api.example.org"
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
def app(lone_app: Flask) -> Flask:
    return lone_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def routes(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & METHODS
    }


def described() -> list[tuple[str, str, dict[str, Any]]]:
    paths = document(BASE)["paths"]
    return [
        (method.upper(), path, operation) for path, methods in paths.items() for method, operation in methods.items()
    ]


def resolved(schema: Any) -> dict[str, Any]:
    return {**schema, "components": document(BASE)["components"]}


def test_every_route_is_described_and_nothing_else(app: Flask) -> None:
    assert routes(app) == {(method, path) for method, path, _ in described()}
    assert len(OPERATIONS) == len(described()), "two descriptions of one route"


def test_the_document_is_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(document(BASE)).validate()
    assert document(BASE)["openapi"] == "3.1.0"


def test_a_wrong_document_is_noticed() -> None:
    whole = json.loads(json.dumps(document(BASE)))
    whole["paths"]["/health"]["get"]["parameters"] = [{"name": "x", "in": "nowhere", "schema": {"type": "string"}}]
    with pytest.raises(OpenAPIValidationError):
        OpenAPIV31SpecValidator(whole).validate()


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    whole = document(BASE)

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    named = {reference.rpartition("/")[2] for reference in walk(whole)}
    assert named == set(whole["components"]["schemas"])
    for schema in whole["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("method", "path", "operation"), described(), ids=lambda value: str(value)[:60])
def test_a_description_is_complete(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert set(operation["tags"]) <= set(TAGS)
    in_path = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
    assert in_path == set(re.findall(r"\{([^}]+)\}", path))
    for parameter in operation.get("parameters", []):
        assert parameter["description"].endswith(".")
        Draft202012Validator.check_schema(parameter["schema"])
        examples = [
            *parameter["schema"].get("examples", ()),
            *([parameter["example"]] if "example" in parameter else ()),
        ]
        assert examples or parameter["schema"].get("default") is not None, f"{parameter['name']} has no example"
        for example in examples:
            Draft202012Validator(resolved(parameter["schema"])).validate(example)
    assert ("429" in operation["responses"]) == (not is_free(path))
    for reply in operation["responses"].values():
        assert reply["description"]
        for media, content in reply.get("content", {}).items():
            if media == "application/json":
                Draft202012Validator(resolved(content["schema"])).validate(content["example"])
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        Draft202012Validator(resolved(content["schema"])).validate(content["example"])
        assert method in {"POST", "PUT"}


@pytest.mark.parametrize("path", ["/openapi.json", "/apispec_1.json", "/openapi.json?url=https://evil.example/x.json"])
def test_the_document_is_served(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert response.json == document(BASE)
    assert response.json["servers"] == [{"url": BASE}]


def test_the_readme_leads_to_the_description() -> None:
    assert "/apidocs/" in (Path(__file__).parent.parent / "README.md").read_text()
