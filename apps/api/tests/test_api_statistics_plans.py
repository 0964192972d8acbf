"""What statistics read: the counters alone, and of measurements only the days that are worked out."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from statistics_sample import Asked, database_day, make, write

from api.openapi import samples, statistics
from api.openapi.model import Operation
from api.reading import Reader


@pytest.fixture(scope="module")
def asked(module_app: Flask, module_dsn: str) -> Iterator[Asked]:
    today = database_day(module_dsn)
    rows = make(today, count=2000)
    write(module_dsn, rows)
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return Asked(module_app, module_dsn, today, rows)


def relations(connection: psycopg.Connection, statement: Any, values: Any) -> set[str]:
    """The tables that a statement reads."""
    row = connection.execute(b"EXPLAIN (FORMAT JSON) " + statement.encode(), values).fetchone()
    assert row is not None
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "Relation Name" in node:
                found.add(node["Relation Name"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(json.loads(row[0]) if isinstance(row[0], str) else row[0])
    return found


@pytest.mark.parametrize("operation", statistics.OPERATIONS, ids=lambda operation: operation.path)
def test_no_statistic_reads_measurements(asked: Asked, operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[tuple[Any, Any]] = []
    original = Reader.rows

    def rows(self: Reader, statement: Any, values: Any = (), **more: Any) -> Any:
        statements.append((statement, values))
        return original(self, statement, values, **more)

    monkeypatch.setattr(Reader, "rows", rows)
    response = asked.client.get(operation.path, query_string=samples.query(operation))
    assert response.status_code == 200
    with psycopg.connect(asked.dsn) as connection:
        read = [relations(connection, *statement) for statement in statements]
    if operation.path == "/api/_/test_names":
        assert not read
        return
    if operation.path == "/api/_/circumvention_runtime_stats":
        months = {table for tables in read for table in tables if table.startswith("fastpath")}
        assert 1 <= len(months) <= 8
        statements.clear()
        assert asked.client.get(operation.path).status_code == 200
        with psycopg.connect(asked.dsn) as connection:
            read = [relations(connection, *statement) for statement in statements]
        assert read == [{"rerun", "takedown_audit"}, {"counters_month_country"}]
        return
    for tables in read:
        assert tables
        assert all(table.startswith("counters_") or table in {"asnmeta", "citizenlab"} for table in tables)
