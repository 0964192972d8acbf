"""The vault that tests need: made on the spot, encrypted, read by ansible."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = ROOT / "tools/make-test-vault"

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv/bin/ansible-vault").exists(), reason="ansible is not installed: run `make setup-ops`"
)


def make(directory: Path, password: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OONI_VAULT_PASSWORD_FILE": str(password)}
    return subprocess.run([MAKE, directory], env=environment, capture_output=True, text=True, check=False)


def variables(inventory: Path, host: str, password: Path) -> dict[str, str]:
    shown = subprocess.run(
        [ROOT / ".venv/bin/ansible-inventory", "-i", inventory, "--vault-password-file", password, "--host", host],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, str] = json.loads(shown.stdout)
    return result


def test_every_mapped_secret_gets_one_random_value(tmp_path: Path) -> None:
    for group in ("database", "api"):
        (tmp_path / "stage/group_vars" / group).mkdir(parents=True)
        (tmp_path / "stage/group_vars" / group / "vars.yml").write_text('api_password: "{{ vault_api_password }}"\n')
    (tmp_path / "stage/hosts.yml").write_text(
        "all: {children: {database: {hosts: {db: {}}}, api: {hosts: {web: {}}}}}\n"
    )
    password = tmp_path / "password"
    made = make(tmp_path / "stage", password)
    assert made.returncode == 0, made.stderr
    vault = tmp_path / "stage/group_vars/api/vault.yml"
    assert vault.read_text().startswith("$ANSIBLE_VAULT;")
    secret = variables(tmp_path / "stage", "web", password)["vault_api_password"]
    assert len(secret) >= 24
    assert variables(tmp_path / "stage", "db", password)["vault_api_password"] == secret
    assert make(tmp_path / "stage", password).returncode == 0
    assert variables(tmp_path / "stage", "web", password)["vault_api_password"] != secret


def test_a_real_inventory_is_left_alone(tmp_path: Path) -> None:
    refused = make(ROOT / "inventory/production", tmp_path / "password")
    assert refused.returncode == 1
    assert "Copy it elsewhere first" in refused.stderr


def test_every_stage_can_be_read_with_a_test_vault(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "inventory", tmp_path / "inventory")
    password = tmp_path / "password"
    for stage in ("production", "staging", "local"):
        assert make(tmp_path / "inventory" / stage, password).returncode == 0
        shown = subprocess.run(
            [ROOT / ".venv/bin/ansible-inventory", "-i", tmp_path / "inventory" / stage, "--list",
             "--vault-password-file", password],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert set(json.loads(shown.stdout)["all"]["children"]) >= {"database", "api", "monitoring"}
