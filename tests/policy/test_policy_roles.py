"""The rules for roles, playbooks and inventories, checked on the files: seconds, and no host needed."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(
    path for path in (ROOT / "ansible").glob("*.yml") if re.search(r"\bhosts:|import_playbook:", path.read_text())
)
INVENTORIES = sorted((ROOT / "inventory").glob("*/hosts.yml"))
TASK_FILES = sorted((ROOT / "roles").glob("*/tasks/*.yml"))
GROUPS = {
    "database", "api", "fastpath", "analysis", "monitoring", "apt_archive", "balancer", "clickhouse", "test_helper",
}  # fmt: skip
PHASES = {"packages", "config", "certs", "network", "service", "monitoring", "secrets"}
# Tags that operators have in their fingers, besides role and phase.
EXTRA_TAGS = {"prometheus-conf"}
LONGEST_TASK_FILE = 80
LONGEST_SCENARIO = 10
LONGEST_README = 40
# Of a task, all that is not a module.
KEYWORDS = set(
    """
    name when tags register loop loop_control notify vars become become_user changed_when failed_when check_mode until
    retries delay no_log environment delegate_to delegate_facts run_once block rescue always listen diff throttle args
    any_errors_fatal ignore_errors ignore_unreachable async poll timeout module_defaults connection
    """.split()  # noqa: SIM905 # a list literal takes forty lines
)


class Loader(yaml.SafeLoader):
    """Reads Ansible's YAML; encrypted and unsafe values are plain text here."""


Loader.add_constructor("!vault", lambda loader, node: "encrypted")
Loader.add_constructor("!unsafe", lambda loader, node: node.value)


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader)  # a SafeLoader


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def with_tasks(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every task, those within blocks included."""
    for task in tasks:
        inner = [task[part] for part in ("block", "rescue", "always") if part in task]
        if inner:
            for part in inner:
                for child in with_tasks(part):
                    yield {**child, "tags": as_list(child.get("tags")) + as_list(task.get("tags"))}
        else:
            yield task


def as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def effective_tags(
    role: Path, file: str = "main.yml", inherited: tuple[str, ...] = ()
) -> Iterator[tuple[str, set[str]]]:
    """Yield (task, tags) with the tags that imports pass on; includes pass on those of their `apply` only."""
    for task in with_tasks(load(role / "tasks" / file) or []):
        tags = (*inherited, *as_list(task.get("tags")))
        imported = task.get("ansible.builtin.import_tasks")
        included = task.get("ansible.builtin.include_tasks")
        if imported is not None:
            yield from effective_tags(role, imported if isinstance(imported, str) else imported["file"], tags)
        elif isinstance(included, dict):
            applied = as_list(included.get("apply", {}).get("tags"))
            yield f"{file}: {task['name']}", set(tags)
            if "{{" not in included["file"]:
                yield from effective_tags(role, included["file"], tuple(applied))
        else:
            yield f"{file}: {task['name']}", set(tags)


def groups_in(node: dict[str, Any]) -> Iterator[str]:
    for name, inner in (node.get("children") or {}).items():
        yield name
        yield from groups_in(inner or {})


def hosts_in(node: dict[str, Any]) -> Iterator[str]:
    yield from (node.get("hosts") or {})
    for inner in (node.get("children") or {}).values():
        yield from hosts_in(inner or {})


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    """What every role has and keeps to."""

    def test_every_variable_is_specified_with_the_same_default(self, role: Path) -> None:
        defaults = load(role / "defaults/main.yml") or {}
        options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options") or {}
        specified = {name: option["default"] for name, option in options.items() if "default" in option}
        assert defaults == specified
        required = {name for name, option in options.items() if option.get("required")}
        assert set(options) == set(defaults) | required, "an option has neither a default nor required: true"
        for name, option in options.items():
            assert option.get("description"), f"{name} has no description"
            assert "type" in option, f"{name} has no type"

    def test_variables_carry_the_name_of_the_role(self, role: Path) -> None:
        public = load(role / "defaults/main.yml") or {}
        private = load(role / "vars/main.yml") if (role / "vars/main.yml").exists() else None
        assert [name for name in public if not name.startswith(f"{role.name}_")] == []
        assert [name for name in private or {} if not name.startswith(f"__{role.name}_")] == []

    def test_every_default_has_its_comment(self, role: Path) -> None:
        lines = (role / "defaults/main.yml").read_text().splitlines()
        bare = [line for before, line in itertools.pairwise(lines) if re.match(r"\w+:", line) and before[:1] != "#"]
        assert bare == []

    def test_it_is_described_and_tested(self, role: Path) -> None:
        assert len((role / "README.md").read_text().splitlines()) <= LONGEST_README
        assert re.search(r"^def test_", (role / f"tests/test_{role.name}.py").read_text(), re.MULTILINE)
        assert (role / "molecule/default/molecule.yml").is_file()
        assert (role / "meta/main.yml").is_file()

    def test_scenarios_only_hold_what_they_change(self, role: Path) -> None:
        for scenario in role.glob("molecule/*/molecule.yml"):
            assert len(scenario.read_text().splitlines()) <= LONGEST_SCENARIO, name_of(scenario)
            assert "verifier" not in (load(scenario) or {}), name_of(scenario)

    def test_every_task_can_be_chosen_by_role_and_by_phase(self, role: Path) -> None:
        wrong = [
            (task, sorted(tags))
            for task, tags in effective_tags(role)
            if "always" not in tags
            and not (role.name in tags and PHASES & tags and tags <= PHASES | {role.name} | EXTRA_TAGS)
        ]
        assert wrong == []


@pytest.mark.parametrize("path", TASK_FILES, ids=name_of)
class TestTaskFile:
    """What every file of tasks keeps to."""

    def test_it_is_short(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= LONGEST_TASK_FILE

    def test_modules_are_named_in_full(self, path: Path) -> None:
        for task in with_tasks(load(path) or []):
            modules = set(task) - KEYWORDS
            assert all(re.fullmatch(r"\w+\.\w+\.\w+", module) for module in modules), task["name"]

    def test_no_condition_names_a_host(self, path: Path) -> None:
        for task in with_tasks(load(path) or []):
            conditions = " ".join(str(condition) for condition in as_list(task.get("when")))
            assert not re.search(r"inventory_hostname|ansible_facts\['(hostname|fqdn|nodename)'\]", conditions), task[
                "name"
            ]

    def test_conditions_are_booleans(self, path: Path) -> None:
        for task in with_tasks(load(path) or []):
            for condition in as_list(task.get("when")):
                assert not re.search(r"lookup\([^)]*\)$", str(condition).strip()), f"{task['name']}: compare the lookup"
                assert "{{" not in str(condition), f"{task['name']}: conditions are expressions already"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=name_of)
class TestPlaybook:
    """What every playbook keeps to."""

    def test_its_first_comment_says_what_it_is_for(self, path: Path) -> None:
        assert re.match(r"---\n# [A-Z].{10,100}\n", path.read_text())

    def test_its_hosts_are_groups_we_know(self, path: Path) -> None:
        for play in load(path):
            if "ansible.builtin.import_playbook" in play:
                assert (path.parent / play["ansible.builtin.import_playbook"]).is_file()
                continue
            named = re.split(r"[:,]", play["hosts"]) if isinstance(play["hosts"], str) else play["hosts"]
            assert {name.strip("!&") for name in named} <= GROUPS | {"all", "localhost"}

    def test_its_roles_exist(self, path: Path) -> None:
        known = {role.name for role in ROLES}
        for play in load(path):
            used = {role if isinstance(role, str) else role["role"] for role in play.get("roles", [])}
            assert used <= known

    def test_it_only_lists_roles(self, path: Path) -> None:
        for play in load(path):
            assert not {"post_tasks", "handlers", "vars_prompt"} & set(play)


@pytest.mark.parametrize("path", INVENTORIES, ids=name_of)
class TestInventory:
    """What every inventory keeps to."""

    def test_it_knows_every_group_and_no_other(self, path: Path) -> None:
        assert set(groups_in(load(path)["all"])) == GROUPS

    def test_variables_belong_to_groups_and_hosts_that_exist(self, path: Path) -> None:
        tree = load(path)["all"]
        assert {entry.stem for entry in path.parent.glob("group_vars/*")} <= GROUPS | {"all"}
        assert {entry.name for entry in path.parent.glob("host_vars/*")} <= set(hosts_in(tree))

    def test_encrypted_values_have_plain_names_beside_them(self, path: Path) -> None:
        for variables in path.parent.rglob("vars.yml"):
            for name, value in (load(variables) or {}).items():
                assert not name.startswith("vault_"), f"{name} in {name_of(variables)} belongs into vault.yml"
                for secret in re.findall(r"vault_\w+", str(value)):
                    assert secret.startswith(f"vault_{name}") or name in secret or isinstance(value, dict | list), (
                        secret
                    )

    def test_no_secret_is_in_plain_text(self, path: Path) -> None:
        for vault in path.parent.rglob("vault.yml"):
            assert vault.read_text().startswith("$ANSIBLE_VAULT;"), (
                f"encrypt it: ansible-vault encrypt {name_of(vault)}"
            )
