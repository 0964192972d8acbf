"""What the role ooni_api refuses about people, in sentences that tell what to do: with real ansible, and no host."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / ".venv/bin/ansible-playbook"

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="ansible is not installed: run `make setup-ops`")

PLAYBOOK = """---
- hosts: api
  gather_facts: false
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - ansible.builtin.include_role: {name: ooni_api, tasks_from: preflight_people, public: true}
    - ansible.builtin.copy:
        content: "{{ {'settings': __ooni_api_all_settings, 'files': __ooni_api_key_files} | to_json }}"
        dest: "{{ found }}"
        mode: "0600"
      run_once: true
"""
KEY = "k" * 64
MAIL: dict[str, Any] = {
    "ooni_api_mail_server": "mail.example.org",
    "ooni_api_mail_source_address": "login@example.org",
    "ooni_api_login_redirect_hosts": ["explorer.example.org"],
}
LOGIN = {"ooni_api_mail_username": "api", "ooni_api_mail_password": "password-of-the-mail-server"}


def run(directory: Path, hosts: int = 1, **variables: Any) -> tuple[int, str, dict[str, Any]]:
    """Return status and output of the preflight, and what the role would write."""
    (directory / "play.yml").write_text(PLAYBOOK)
    (directory / "hosts.yml").write_text(
        json.dumps({"all": {"children": {"api": {"hosts": {f"h{number}": {} for number in range(hosts)}}}}})
    )
    found = directory / "found.json"
    given = {"found": str(found), "ansible_facts": {"processor_nproc": 2}, **variables}
    (directory / "given.json").write_text(json.dumps(given))
    done = subprocess.run(
        [ANSIBLE, "-i", directory / "hosts.yml", "-e", f"@{directory}/given.json", directory / "play.yml"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    return done.returncode, said, json.loads(found.read_text()) if found.exists() else {}


def test_without_any_variable_nothing_is_written_that_an_older_release_does_not_know(tmp_path: Path) -> None:
    status, said, found = run(tmp_path)
    assert status == 0, said
    assert found["files"] == []
    assert [name for name in found["settings"] if re.match("mail|login|session|account|test_lists", name)] == []


def test_what_is_configured_reaches_settings_and_files_and_no_secret_is_among_the_settings(tmp_path: Path) -> None:
    status, said, found = run(
        tmp_path,
        hosts=2,
        ooni_api_probe_token_keys=[KEY],
        ooni_api_session_keys=[KEY, "o" * 64],
        ooni_api_account_id_key="a" * 64,
        ooni_api_test_lists={"repository": "https://git.example.org/lists", "fork_owner": "bot"},
        ooni_api_test_lists_forge_token="token-of-the-forge",
        ooni_api_session_expiry_days=3,
        **MAIL,
        **LOGIN,
    )
    assert status == 0, said
    settings = found["settings"]
    assert {name: settings[name] for name in settings if name.startswith(("mail_", "login_"))} == {
        "mail_server": "mail.example.org",
        "mail_port": 587,
        "mail_security": "starttls",
        "mail_source_address": "login@example.org",
        "mail_username": "api",
        "mail_password_file": "/var/lib/ooni-api/mail_password",
        "login_redirect_hosts": ["explorer.example.org"],
    }
    assert settings["test_lists_repository"] == "https://git.example.org/lists"
    assert settings["test_lists_fork_owner"] == "bot"
    assert settings["test_lists_forge_token"] == "/var/lib/ooni-api/test_lists_forge_token"
    assert settings["session_expiry_days"] == 3
    files = {file["name"]: file["lines"] for file in found["files"]}
    assert files["session_keys"] == [KEY, "o" * 64]
    assert (files["account_id_key"], files["mail_password"]) == (["a" * 64], [LOGIN["ooni_api_mail_password"]])
    for secret in (KEY, "a" * 64, "token-of-the-forge", LOGIN["ooni_api_mail_password"]):
        assert secret not in json.dumps(settings)


WEAK = "weak-secret"


@pytest.mark.parametrize(
    ("hosts", "variables", "sentence"),
    [
        (1, {"ooni_api_session_keys": [WEAK]}, "32 or more printable characters"),
        (1, {"ooni_api_probe_token_keys": [f"{WEAK} {KEY}"]}, "32 or more printable characters"),
        (1, {"ooni_api_account_id_key": WEAK}, "once and for good"),
        (1, {"ooni_api_account_id_key": "a" * 65}, "once and for good"),
        (2, {"ooni_api_probe_token_keys": [KEY], "ooni_api_session_keys": [KEY]}, "ooni_api_account_id_key is empty"),
        (2, {"ooni_api_probe_token_keys": [KEY], "ooni_api_account_id_key": KEY}, "ooni_api_session_keys is empty"),
        (
            1,
            {**MAIL, "ooni_api_mail_source_address": ""},
            "ooni_api_mail_source_address, for example login@example.org",
        ),
        (1, {**MAIL, "ooni_api_mail_source_address": "login"}, "for example login@example.org"),
        (1, {**MAIL, "ooni_api_login_redirect_hosts": []}, "for example [explorer.example.org]"),
        (1, {**MAIL, "ooni_api_login_redirect_hosts": ["https://explorer.example.org/"]}, "without https://"),
        (1, {**MAIL, "ooni_api_mail_username": "api"}, "ooni_api_mail_username goes with ooni_api_mail_password"),
        (1, {**MAIL, **LOGIN, "ooni_api_mail_security": "none"}, "could read it otherwise"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence_without_a_secret(
    tmp_path: Path, hosts: int, variables: dict[str, Any], sentence: str
) -> None:
    status, said, found = run(tmp_path, hosts, **variables)
    assert status != 0
    assert sentence in said
    assert found == {}
    for secret in (WEAK, KEY, LOGIN["ooni_api_mail_password"]):
        assert secret not in said
