"""Settings, ports and the environment of the stack's programs."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from api.config import ApiSettings, check
from api.login_redirects import RedirectHosts
from core.config import load_settings
from devstack import config
from devstack.config import StackSettings
from devstack.errors import StackError
from devstack.places import Places
from devstack.ports import free_ports, require_free
from devstack.services import Wiring, answers, command


def test_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load({"PORT": "", "COUNT": "", "CORPUS": ""}) == StackSettings(run_dir=tmp_path / "run")


def test_everything_can_be_chosen(tmp_path):
    chosen = {"PORT": "8081", "RUN_DIR": str(tmp_path / "x"), "COUNT": "7", "CORPUS": str(tmp_path), "TRICKLE": "0.5"}
    chosen["SESSIONS"] = "9"
    assert config.load(chosen) == StackSettings(
        port=8081, run_dir=tmp_path / "x", count=7, sessions=9, corpus=tmp_path, trickle_s=0.5
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "70000"),
        ("COUNT", "-1"),
        ("SESSIONS", "many"),
        ("COUNT", "²"),
        ("TRICKLE", "often"),
        ("TRICKLE", "nan"),
        ("CORPUS", "/nonexistent"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(name, value):
    with pytest.raises(StackError, match=rf"{name} is .*(make run {name}=|Name one)"):
        config.load({name: value})


def test_free_ports_are_different_and_free():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        require_free(port)


def test_a_taken_port_is_refused_whatever_address_it_is_taken_on():
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as taken:
            taken.bind((address, 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(StackError, match=f"Port {port} is taken .* make run PORT="):
                require_free(port)


@pytest.fixture
def wiring(tmp_path) -> Wiring:
    return Wiring(StackSettings(port=8099, run_dir=tmp_path), Places(tmp_path), "postgresql:///here")


def test_the_stack_never_leaves_its_directory(wiring, tmp_path):
    outer = {"OONI_API_DB_URI": "postgresql://db.example.org/ooni", "OONI_DSN": "postgresql:///here"}
    environ = wiring.environ(outer)
    assert {environ[f"OONI_{name}"] for name in ("DSN", "API_DB_URI", "FASTPATH_DB_URI", "UPLOADER_DB_URI")} == {
        "postgresql:///here"
    }
    assert wiring.overruled(outer) == ["OONI_API_DB_URI"]
    assert environ["OONI_UPLOADER_STORE_URL"] == environ["OONI_API_STORE_URL"] == (tmp_path / "objects").as_uri()


def test_other_settings_pass_through_and_the_service_manager_does_not(wiring):
    outer = {"OONI_FASTPATH_WORKERS": "3", "OONI_API_COLLECTOR_ID": "7", "JOURNAL_STREAM": "8:1", "PATH": "/bin"}
    environ = wiring.environ(outer)
    assert environ["OONI_FASTPATH_WORKERS"] == "3"
    assert environ["OONI_API_COLLECTOR_ID"] == "7"
    assert environ["PATH"] == "/bin"
    assert "JOURNAL_STREAM" not in environ


def test_every_app_understands_its_settings(wiring, tmp_path):
    """The names are written here and in each app; an app refuses one that it does not know."""
    Places(tmp_path).prepare()
    code = (
        "import {0}.config as c, msgspec, core.config as k;"
        "s = [v for v in vars(c).values() if isinstance(v, type) and issubclass(v, msgspec.Struct) and v is not"
        " msgspec.Struct]; k.load_settings(s[0], app='{0}')"
    )
    for app in ("api", "fastpath", "uploader"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(app)],
            env=wiring.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_missing_command_is_a_sentence():
    with pytest.raises(StackError, match="make setup"):
        command("no-such-command")


def test_nobody_answers_where_nobody_listens():
    (port,) = free_ports(1)
    assert not answers(f"http://127.0.0.1:{port}/health")


def test_places_that_cannot_be_made_are_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="make run RUN_DIR="):
        Places(tmp_path / "file" / "run").prepare()


def test_people_log_in_without_mail_from_an_interface_on_this_machine(wiring, tmp_path):
    Places(tmp_path).prepare()
    settings = load_settings(ApiSettings, app="api", environ=wiring.environ({}))
    check(settings)  # a log with login links is refused where it could be a production's
    hosts = RedirectHosts(settings.login_redirect_hosts)
    for origin in ("https://explorer.ooni.org", "http://localhost:3000", "http://127.0.0.1:3000"):
        assert hosts.origin_of(f"{origin}/findings") == origin
    assert hosts.origin_of("http://explorer.ooni.org/") is None


def test_a_developer_can_have_links_mailed(wiring):
    outer = {"OONI_API_MAIL_TRANSPORT": "smtp", "OONI_API_MAIL_SERVER": "mail.example.org"}
    environ = wiring.environ(outer)
    assert {name: environ[name] for name in outer} == outer
    assert wiring.overruled(outer) == []
