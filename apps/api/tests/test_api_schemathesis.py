"""Every operation of our own description, asked with generated requests, good and bad.

None is answered with a 5xx, and each with a status, a content type and a body that are described.

The application runs with a real database. Generation is derandomised, so the same requests are made every time.
"""

import json
from typing import Any

import psycopg
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from list_editor import edit_lists_at
from people import signed_in_headers
from run_link_sample import load_run_links
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.openapi.document import document
from api.openapi.schemas import REPORT_ID, UID, URL

EXAMPLES = 30
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def app(module_app: Flask, module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    load_run_links(module_dsn)
    edit_lists_at(module_app, tmp_path_factory.mktemp("lists"))
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            """INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,
                   measurement_start_time, test_start_time, anomaly, confirmed, msm_failure, scores)
               VALUES (%s, %s, %s, 'www.example.org', 'IE', 34245, 'web_connectivity',
                   '2024-01-01 00:01:00', '2024-01-01 00:00:00', false, false, false, '{}')""",
            [UID, REPORT_ID, URL],
        )
    body = {"input": URL, "probe_cc": "IE", "test_name": "web_connectivity"}
    module_app.extensions["api"].intake.spool.put(
        UID, json.dumps({"content": body, "format": "json"}).encode(), REPORT_ID
    )
    return module_app


@pytest.fixture(scope="module")
def token(app: Flask) -> str:
    client = app.test_client()
    client_id = client.post("/api/v1/register", json={}).json["client_id"]
    return str(client.post("/api/v1/login", json={"username": client_id, "password": "x"}).json["token"])


MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
OPERATIONS = [
    result.ok() for result in schemathesis.openapi.from_dict(document("http://localhost")).get_all_operations()
]


def can_be_wrong(operation: Any) -> bool:
    """Whether it has a body or a parameter that not every text is a value of."""
    raw = operation.definition.raw
    return "requestBody" in raw or any(each["schema"] != {"type": "string"} for each in raw.get("parameters", []))


ASKED = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in MODES
    if mode is GenerationMode.POSITIVE or can_be_wrong(operation)
]


@pytest.mark.parametrize(("operation", "mode"), ASKED)
def test_every_operation_answers_as_described(
    app: Flask, module_dsn: str, token: str, operation: Any, mode: GenerationMode
) -> None:
    schemes = {name for each in operation.definition.raw.get("security", ()) for name in each}
    headers = {"Authorization": f"Bearer {token}"} if schemes else None
    if "session" in schemes:
        headers = signed_in_headers(app, module_dsn, role="admin", email="admin@example.org")

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(base_url="http://localhost", app=app, headers=headers, checks=CHECKS)

    ask()
