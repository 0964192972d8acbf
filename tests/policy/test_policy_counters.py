"""Whoever changes rows may change every counter table, and each table is made by a migration as the code names it."""

import re
from pathlib import Path

import pytest
import yaml

from core import schema
from core.counters import COUNTS, TABLES, CounterTable

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("role", ["fastpath", "analysis"])
def test_the_roles_that_count_may_write_every_counter_table(role: str) -> None:
    defaults = yaml.safe_load((ROOT / "roles/postgresql/defaults/main.yml").read_text("utf-8"))
    [writes] = [found["writes"] for found in defaults["postgresql_roles"] if found["name"] == role]
    assert {name for name in writes if name.startswith("counters_")} == {table.name for table in TABLES}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_migrations_make_the_table_with_these_columns(table: CounterTable) -> None:
    migrations = "\n".join(path.read_text("utf-8") for path in sorted(schema.MIGRATIONS.glob("*.sql")))
    found = re.search(rf"CREATE TABLE {table.name} \((.*?)\n    key uuid", migrations, re.DOTALL)
    assert found is not None
    assert re.findall(r"^    (\w+)", found[1], re.MULTILINE) == [*table.columns, *COUNTS]
