"""`make new-test` in a copy of the tree: what it makes is in the house style, scored, and known to a real database."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from devstack.postgres import PostgresCluster

REPOSITORY = Path(__file__).parents[3]
NAME = "sample_reachability"
COPIED = ("apps", "tools", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis")


class Tree:
    """A copy of what the scaffold touches, which is looked at before the installed apps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=LEFT_OUT)
            else:
                shutil.copy(source, root / name)
        (root / ".venv").symlink_to(REPOSITORY / ".venv")

    def run(self, *command: str, status: int = 0, **environ: str) -> str:
        paths = os.pathsep.join(str(path) for path in sorted(self.root.glob("apps/*/src")))
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": paths, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, str]:
        found = {}
        for path in sorted(self.root.rglob("apps/**/*")):
            if path.is_file() and path.suffix in (".py", ".sql", ".json") and "__pycache__" not in path.parts:
                found[str(path.relative_to(self.root))] = path.read_text()
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    if not (REPOSITORY / ".venv/bin/ruff").exists():
        pytest.skip("the scaffold needs .venv/bin/ruff, which `make setup` installs")
    return Tree(tmp_path / "tree")


@pytest.fixture
def empty_database(pg_cluster: PostgresCluster) -> Iterator[str]:
    name = "fastpath_new_test"
    with psycopg.connect(pg_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield pg_cluster.dsn(name)
    with psycopg.connect(pg_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_the_scaffold_is_clean_scored_and_known_to_the_database(tree: Tree, empty_database: str) -> None:
    tree.run(".venv/bin/database_upgrade_schema", "--dsn", empty_database)
    before = tree.files()
    tree.run("tools/new-test", NAME)
    made = changed(before, tree.files())
    (migration,) = [path for path in made if path.endswith(".sql")]
    assert made == {
        f"apps/fastpath/src/fastpath/score/{NAME}.py",
        "apps/fastpath/src/fastpath/score/__init__.py",
        "apps/core/src/core/testnames.py",
        migration,
        *(
            f"apps/fastpath/tests/golden/{NAME}/{reason}.json"
            for reason in ("reachable", "blocked", "no_verdict_is_a_failure")
        ),
    }
    python = sorted(path for path in made if path.endswith(".py"))
    tree.run(".venv/bin/ruff", "check", *python)
    tree.run(".venv/bin/ruff", "format", "--check", *python)
    tree.run(".venv/bin/mypy", f"apps/fastpath/src/fastpath/score/{NAME}.py")
    tests = "apps/fastpath/tests/test_fastpath_score.py"
    passed = tree.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    golden = len(list((tree.root / "apps/fastpath/tests/golden").glob("*/*.json")))
    assert f"{golden + 3} passed" in passed

    # A database that is in use already, as in production.
    assert Path(migration).name in tree.run(".venv/bin/database_upgrade_schema", "--dsn", empty_database)
    with psycopg.connect(empty_database) as connection:
        names = connection.execute("SELECT unnest(enum_range(NULL::ootest))::text").fetchall()
    assert (NAME,) in names
    known = tree.run(sys.executable, "-c", "import core.testnames as t; print(*t.KNOWN_TEST_NAMES)").split()
    assert sorted(known) == sorted(name for (name,) in names)

    again = tree.run("tools/new-test", NAME, status=1)
    assert f"{NAME} has a scorer" in again


def test_a_name_that_the_database_knows_needs_no_migration(tree: Tree) -> None:
    before = tree.files()
    tree.run("tools/new-test", "echcheck")
    made = changed(before, tree.files())
    assert not [path for path in made if path.endswith(".sql")]
    assert 'echcheck",' in tree.files()["apps/core/src/core/testnames.py"].partition("UNSCORED")[0]
    tree.run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "apps/fastpath/tests/test_fastpath_score.py"
    )


@pytest.mark.parametrize("name", ["", "Foo", "foo__bar", "_foo", "foo-bar", "1foo", "class", "a" * 31, "a", "foo; id"])
def test_names_that_cannot_be_are_refused_and_change_nothing(tree: Tree, name: str) -> None:
    before = tree.files()
    said = tree.run("tools/new-test", name, status=1)
    assert said.startswith("new-test: ")
    assert tree.files() == before
