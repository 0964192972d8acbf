"""What the database lets the API write is what its statements write: no more, and no table is forgotten."""

import re
from pathlib import Path
from typing import Any

import yaml

from core import schema

ROOT = Path(__file__).parents[2]
CHANGES = re.compile(r"\b(?:(INSERT INTO|DELETE FROM)|(?<!FOR )(?<!DO )UPDATE)\s+(?!SET\b)(?:ONLY\s+)?([a-z_]+)\b")


def rights_of(role: str) -> dict[str, Any]:
    defaults = yaml.safe_load((ROOT / "roles/postgresql/defaults/main.yml").read_text("utf-8"))
    [found] = [entry for entry in defaults["postgresql_roles"] if entry["name"] == role]
    return dict(found)


def statements_of_the_api() -> set[tuple[str, str]]:
    """Return (kind of change, table) of every statement in the API's sources; only SQL is written in capitals."""
    found = set()
    for path in sorted((ROOT / "apps/api/src/api").rglob("*.py")):
        for match in CHANGES.finditer(path.read_text("utf-8")):
            found.add(((match[1] or "UPDATE").split()[0], match[2]))
    return found


def test_the_api_may_write_exactly_the_tables_that_it_writes() -> None:
    rights = rights_of("ooniapi")
    tables = {table for _, table in statements_of_the_api()}
    assert "accounts" in tables
    assert tables == set(rights["writes"]) | set(rights["appends"])


def test_tables_that_are_only_added_to_are_never_changed() -> None:
    appended = set(rights_of("ooniapi")["appends"])
    assert "audit_log" in appended
    assert {(kind, table) for kind, table in statements_of_the_api() if table in appended} == {
        ("INSERT", table) for table in appended
    }


def test_every_table_that_a_role_may_write_is_made_by_a_migration() -> None:
    migrations = "\n".join(path.read_text("utf-8") for path in sorted(schema.MIGRATIONS.glob("*.sql")))
    made = set(re.findall(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", migrations, re.MULTILINE))
    for role in ("ooniapi", "fastpath", "uploader", "analysis"):
        rights = rights_of(role)
        assert {*rights.get("writes", []), *rights.get("appends", [])} <= made, role
