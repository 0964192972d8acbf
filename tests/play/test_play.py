"""The wrapper `play`, on a tree of its own: real ansible, real git, a real terminal, a real HTTP server."""

import json
import os
import pty
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USAGE, DIRTY, LOCKED = 64, 65, 75

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv/bin/ansible-playbook").exists(), reason="ansible is not installed: run `make setup-ops`"
)

PLAYBOOK = """---
# Writes a word into a file.
- name: Write
  hosts: web
  gather_facts: false
  tasks:
    - name: Word
      ansible.builtin.copy:
        content: "{{ word | default('none') }} {{ secret_word | default('') }}"
        dest: "{{ target }}-{{ inventory_hostname }}"
        mode: "0600"
    - name: Wait
      ansible.builtin.wait_for:
        path: "{{ wait }}"
        timeout: 60
      when: wait is defined
    - name: Fail
      ansible.builtin.fail:
        msg: as asked
      when: broken is defined
"""
INVENTORY = """---
all:
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}", target: %s}
  children:
    web: {hosts: {h1: {}, h2: {}}}
    empty: {hosts: {}}
"""


@dataclass
class Tree:
    """A repository with play, one playbook and two stages."""

    path: Path
    state: Path
    target: Path
    environment: dict[str, str] = field(default_factory=dict)

    def environ(self, **more: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": str(self.state), "PLAY_STATE_DIR": str(self.state / "play"), "PLAY_OPERATOR": "maria"}
        return {**inherited, **own, **self.environment, **more}

    def play(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path / "play", *arguments], cwd=cwd or self.path, env=self.environ(**more), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def written(self, host: str) -> str | None:
        path = Path(f"{self.target}-{host}")
        return path.read_text() if path.exists() else None


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    path = tmp_path / "tree"
    (path / "ansible").mkdir(parents=True)
    for name in ("play", "ansible/ansible.cfg", "ansible/vault-password"):
        shutil.copy(ROOT / name, path / name)
    (path / ".venv").symlink_to(ROOT / ".venv")
    (path / ".gitignore").write_text(".venv\n")
    (path / "roles").mkdir()
    (path / "ansible/deploy-word.yml").write_text(PLAYBOOK)
    target = tmp_path / "word"
    for stage in ("production", "staging"):
        (path / "inventory" / stage).mkdir(parents=True)
        (path / "inventory" / stage / "hosts.yml").write_text(INVENTORY % target)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "start"]):
        identity = ["-c", "user.name=maria", "-c", "user.email=maria@example.org"]
        subprocess.run(["git", *identity, *command], cwd=path, check=True)
    state = tmp_path / "home"
    state.mkdir()
    return Tree(path, state, target)


class Webhook:
    """An HTTP server that keeps what is announced to it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        texts = self.texts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the base class names it so
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook-s3cret"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.stop()


def test_alone_it_lists_the_playbooks_with_a_line_each(tree: Tree) -> None:
    shown = tree.play()
    assert shown.returncode == 0
    assert "deploy-word.yml            Writes a word into a file." in shown.stdout
    assert "production staging" in shown.stdout


def test_it_plays_on_production_from_any_directory_and_passes_arguments_on(tree: Tree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    first = tree.play("deploy-word.yml", "-l", "h1", "-e", "word='two words'", cwd=elsewhere)
    assert first.returncode == 0, first.stdout + first.stderr
    assert tree.written("h1") == "two words "
    assert tree.written("h2") is None
    second = tree.play("deploy-word.yml", "-lh1", "--extra-vars", "word='two words'", cwd=elsewhere)
    assert "changed=0" in second.stdout


def test_a_rehearsal_changes_nothing_and_shows_the_difference(tree: Tree) -> None:
    rehearsal = tree.play("deploy-word.yml", "-CD", "-e", "word=new")
    assert rehearsal.returncode == 0, rehearsal.stderr
    assert "+new" in rehearsal.stdout
    assert tree.written("h1") is None


def test_its_result_is_that_of_ansible(tree: Tree) -> None:
    assert tree.play("deploy-word.yml", "-e", "broken=1").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deploy-wrod.yml"], "there is no playbook deploy-wrod.yml"),
        (["deploy-word.yml", "-i", "stagnig"], "there is no inventory stagnig. Stages are: production staging"),
        (["--check"], "no playbook named"),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_those_that_do(tree: Tree, arguments: list[str], words: str) -> None:
    refused = tree.play(*arguments)
    assert refused.returncode == USAGE
    assert words in refused.stderr


@pytest.mark.parametrize("limit", ["h9", "h1,h9", "wbe"])
def test_a_limit_that_matches_no_host_is_an_error(tree: Tree, limit: str) -> None:
    refused = tree.play("deploy-word.yml", "-l", limit)
    assert refused.returncode != 0
    assert tree.written("h1") is None


def test_a_limit_outside_the_playbook_is_an_error(tree: Tree) -> None:
    (tree.path / "ansible/deploy-empty.yml").write_text(PLAYBOOK.replace("hosts: web", "hosts: empty"))
    refused = tree.play("deploy-empty.yml", "-l", "h1", "-i", "staging")
    assert refused.returncode == USAGE
    assert 'deploy-empty.yml has no host within "h1"' in refused.stderr
    assert tree.play("deploy-empty.yml", "-i", "staging").returncode == 0


def test_a_group_that_no_inventory_knows_is_an_error(tree: Tree) -> None:
    (tree.path / "ansible/deploy-typo.yml").write_text(PLAYBOOK.replace("hosts: web", "hosts: wbe"))
    refused = tree.play("deploy-typo.yml", "-i", "staging")
    assert refused.returncode != 0
    assert "wbe" in refused.stdout + refused.stderr


def test_production_refuses_a_dirty_tree_unless_told(tree: Tree) -> None:
    (tree.path / "ansible/ansible.cfg").write_text((ROOT / "ansible/ansible.cfg").read_text() + "# a change\n")
    refused = tree.play("deploy-word.yml")
    assert refused.returncode == DIRTY
    assert "PLAY_ALLOW_DIRTY=1" in refused.stderr
    assert tree.play("deploy-word.yml", "-i", str(tree.path / "inventory/production/hosts.yml")).returncode == DIRTY
    assert tree.written("h1") is None
    assert tree.play("deploy-word.yml", "--check").returncode == 0
    assert tree.play("deploy-word.yml", "-i", "staging").returncode == 0
    assert tree.play("deploy-word.yml", PLAY_ALLOW_DIRTY="1").returncode == 0


def test_a_host_is_played_on_by_one_run_at_a_time(tree: Tree, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    first = subprocess.Popen(
        [tree.path / "play", "deploy-word.yml", "-l", "h1", "-e", f"wait={go_on}"],
        cwd=tree.path, env=tree.environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while tree.written("h1") is None:
            assert time.monotonic() < deadline, "the first run never began"
            time.sleep(0.1)
        second = tree.play("deploy-word.yml", PLAY_OPERATOR="bob")
        other = tree.play("deploy-word.yml", "-l", "h2")
    finally:
        go_on.touch()
        first.communicate(timeout=60)
    assert second.returncode == LOCKED
    assert "h1 is being played on: maria since" in second.stderr
    assert other.returncode == 0
    assert first.returncode == 0
    assert tree.play("deploy-word.yml", "-l", "h1").returncode == 0


def test_start_and_result_are_announced_without_secrets(tree: Tree, webhook: Webhook) -> None:
    tree.play("deploy-word.yml", "-l", "h1", "-e", "secret_word=hunter2", PLAY_WEBHOOK=webhook.url)
    tree.play("deploy-word.yml", "-e", "broken=1", PLAY_WEBHOOK=webhook.url)
    start, end, _, failure = webhook.texts
    revision = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=tree.path, text=True).strip()
    assert start.startswith("maria plays `deploy-word.yml -i production -l h1 -e ...` on h1 (")
    assert revision in start
    assert "clean tree" in start
    assert "done after" in end
    assert "FAILED with code 2" in failure
    assert "hunter2" not in "".join(webhook.texts)


def test_a_rehearsal_is_not_announced(tree: Tree, webhook: Webhook) -> None:
    assert tree.play("deploy-word.yml", "--check", PLAY_WEBHOOK=webhook.url).returncode == 0
    assert webhook.texts == []


def test_a_webhook_that_is_down_stops_nothing_and_is_not_named(tree: Tree) -> None:
    run = tree.play("deploy-word.yml", "-l", "h1", PLAY_WEBHOOK="http://127.0.0.1:9/hook-s3cret")
    assert run.returncode == 0
    assert "the announcement was not delivered" in run.stderr
    assert "s3cret" not in run.stdout + run.stderr


def test_the_vault_password_is_asked_for_where_something_is_encrypted(tree: Tree, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    variables = tree.path / "inventory/staging/group_vars/web.yml"
    variables.parent.mkdir()
    variables.write_text("word: from the vault\n")
    vault: list[str | Path] = [
        ROOT / ".venv/bin/ansible-vault",
        "encrypt",
        "--vault-password-file",
        password,
        variables,
    ]
    subprocess.run(vault, check=True, capture_output=True)
    refused = tree.play("deploy-word.yml", "-i", "staging")
    assert refused.returncode == USAGE
    assert "Set OONI_VAULT_PASSWORD_FILE" in refused.stderr
    played = tree.play("deploy-word.yml", "-i", "staging", OONI_VAULT_PASSWORD_COMMAND=f"cat '{password}'")
    assert played.returncode == 0, played.stderr
    assert tree.written("h1") == "from the vault "


def test_interactive_runs_leave_a_private_transcript_with_timing(tree: Tree) -> None:
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover
        os.chdir(tree.path)
        os.execve(
            tree.path / "play",
            ["play", "deploy-word.yml", "-l", "h1", "-e", "secret_word=hunter2", "--diff"],
            tree.environ(),
        )
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the terminal closed: the run is over
            break
        if not chunk:
            break
        shown += chunk
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    directory = tree.state / "play/transcripts"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    transcript, timing = sorted(directory.iterdir())
    assert timing.name == transcript.name + ".timing"
    assert "deploy-word.yml_-i_production_-l_h1" in transcript.name
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600
    text = transcript.read_text()
    assert "PLAY RECAP" in text
    assert "PLAY RECAP" in shown.decode()
    replay = subprocess.run(
        ["scriptreplay", "--divisor", "1000000", "-t", timing, transcript], capture_output=True, text=True, check=True
    )
    assert "PLAY RECAP" in replay.stdout
    assert "hunter2" not in text.replace("+none hunter2", "")
