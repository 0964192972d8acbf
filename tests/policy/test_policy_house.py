"""The rules of the house, checked: what lives where, who may import whom, what may not be in the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = sorted(path.parent.name for path in ROOT.glob("apps/*/pyproject.toml"))
LONGEST_MODULE = 500
LONGEST_FOLDER_README = 40
APP_README_PARTS = ("Tutorial", "How-to", "Pager playbook", "Disaster recovery", "Reference")


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git has or would take, without what is ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules.add(node.module.split(".")[0])
    return modules


@pytest.mark.parametrize("app", APPS)
def test_apps_import_core_and_nothing_of_each_other(app: str) -> None:
    allowed = {app, "core"}
    for path in tracked(f"apps/{app}/src/*.py"):
        foreign = imported_modules(path) & set(APPS) - allowed
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}; apps meet through the spool, SQL and HTTP"


@pytest.mark.parametrize("app", APPS)
def test_every_app_has_a_readme_with_the_five_parts(app: str) -> None:
    text = (ROOT / "apps" / app / "README.md").read_text()
    for part in APP_README_PARTS:
        assert re.search(rf"^## {part}", text, re.MULTILINE), f"apps/{app}/README.md lacks the part '{part}'"


def test_every_folder_of_the_house_has_a_short_readme() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    for folder in sorted(name for name in folders if not name.startswith(".")):
        readme = ROOT / folder / "README.md"
        assert readme.is_file(), f"{folder}/ has no README.md: what lives here, how to add one, how to test one"
        assert len(readme.read_text().splitlines()) <= LONGEST_FOLDER_README


def test_no_module_has_outgrown_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked("*.py")
        if (count := len(path.read_text().splitlines())) > LONGEST_MODULE
    }
    assert not long, f"split these files: {long}"


def test_locks_are_hashed_and_name_no_index() -> None:
    locks = tracked("*.lock")
    assert locks
    for lock in locks:
        text = lock.read_text()
        packages = re.findall(r"^[a-z0-9][a-z0-9._-]*==", text, re.MULTILINE)
        assert packages
        assert "://" not in text
        for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
            assert "--hash=sha256:" in block, f"{lock.name}: no hash for {block.splitlines()[0]}"


def test_nothing_of_this_machine_and_no_secret_is_in_the_tree() -> None:
    registries = ["pypi" + ".org", "pythonhosted" + ".org", "deb.debian" + ".org", "registry.npmjs" + ".org"]
    keys = [f"BEGIN {kind}" + "PRIVATE KEY" for kind in ("", "RSA ", "OPENSSH ", "EC ", "ENCRYPTED ")]
    words = [*registries, *keys, str(ROOT) + "/"]
    for path in tracked():
        data = path.read_bytes()
        for word in words:
            assert word.encode() not in data, f"{path.relative_to(ROOT)} holds {word!r}"


def test_nothing_is_left_to_do_in_the_code() -> None:
    pattern = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|XX" + "X)\\b")
    for path in tracked("*.py", "*.sh", "*.yml", "*.yaml", "*.sql", "Makefile"):
        assert not pattern.search(path.read_text()), f"{path.relative_to(ROOT)} has an open end"


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE))
    documented = set(re.findall(r"^([a-z][a-z-]*):[^\n]*## ", text, re.MULTILINE))
    assert targets == documented
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in targets:
        assert f"make {target} " in shown


def test_documents_name_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in tracked("*.md"):
        for target in re.findall(r"`make ([a-z][a-z-]*)", path.read_text()):
            assert target in targets, f"{path.relative_to(ROOT)} names `make {target}`"


def test_documents_link_to_files_that_exist() -> None:
    for path in tracked("*.md"):
        for link in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}, which is not there"
