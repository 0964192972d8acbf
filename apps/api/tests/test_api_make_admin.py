"""`ooni-api make-admin`: as it is run on a host, with the service's configuration and a real database."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from people import account_id_of, signed_in_headers
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api.account_ids import KEY_FILE, AccountIds

ADMIN = "first.admin+x@example.org"
COMMAND = str(Path(sys.executable).parent / "ooni-api")
AWAY = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory of the service that other users can get to, as below /var/lib."""
    directory = Path(tempfile.mkdtemp(prefix="make-admin-"))
    directory.chmod(0o755)
    (directory / "state").mkdir(mode=0o700)
    yield directory / "state"
    shutil.rmtree(directory)


@pytest.fixture
def config(state: Path, dsn: str) -> Path:
    path = state.parent / "api.toml"
    path.write_text(f'db_uri = "{dsn}"\nstate_directory = "{state}"\n')
    return path


def put_key(state: Path, key: str = "k" * 32) -> None:
    """Make the key that the service would have made."""
    (state / KEY_FILE).write_text(f"{key}\n")
    (state / KEY_FILE).chmod(0o600)


def run(config: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [COMMAND, "--config", str(config), "make-admin", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def roles(dsn: str) -> dict[str, str]:
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT account_id, role FROM accounts").fetchall())


def audited(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT account_id, role, via, action, subject, detail FROM audit_log ORDER BY audit_id"
        ).fetchall()


def whole(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        tables = ("accounts", "audit_log", "login_mails", "access_tokens")
        return "".join(str(connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()) for name in tables)


def test_the_first_admin_and_no_admin_any_more(config: Path, state: Path, dsn: str) -> None:
    put_key(state)
    account_id = AccountIds(state / KEY_FILE, create=False).of(ADMIN)
    made = run(config, f"  {ADMIN.upper()} ")
    assert (made.returncode, made.stderr) == (0, "")
    assert account_id in made.stdout
    assert "Next: log in" in made.stdout
    assert roles(dsn) == {account_id: "admin"}
    again = run(config, ADMIN)
    assert (again.returncode, again.stderr) == (0, "")
    assert "already" in again.stdout
    removed = run(config, ADMIN, "--remove")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert "none is left" in removed.stdout
    assert roles(dsn) == {account_id: "user"}
    nobody = run(config, "--remove", ADMIN)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no admin" in nobody.stderr
    assert audited(dsn) == [
        ("command", "command", "command", "account.set_role", account_id, {"role": "admin", "before": None}),
        ("command", "command", "command", "account.set_role", account_id, {"role": "user", "before": "admin"}),
    ]
    assert "@" not in whole(dsn)
    assert "example" not in whole(dsn)


def test_the_address_can_be_read_from_a_line(config: Path, state: Path, dsn: str) -> None:
    """So that it is in no history of a shell and in no log of commands run by sudo."""
    put_key(state)
    made = run(config, "-", input=f"{ADMIN}\n")
    assert (made.returncode, made.stderr) == (0, "")
    assert list(roles(dsn).values()) == ["admin"]
    assert run(config, "-", input="").returncode == 2


def test_it_counts_at_once_in_sessions_that_run(start_api: Callable[..., Any], dsn: str) -> None:
    server = start_api(dsn)
    headers = signed_in_headers(server, dsn, email=ADMIN)
    assert server.http.get("/api/v1/audit_log", headers=headers).status_code == 401
    config = server.directory / "api.toml"
    config.write_text(f'db_uri = "{dsn}"\nstate_directory = "{server.settings["state_directory"]}"\n')
    made = run(config, ADMIN)
    assert made.returncode == 0, made.stderr
    assert account_id_of(server, ADMIN) in made.stdout
    (line,) = server.http.get("/api/v1/audit_log", headers=headers).json()["results"]
    assert (line["via"], line["account_id"], line["subject"]) == ("command", "command", account_id_of(server, ADMIN))
    assert run(config, ADMIN, "--remove").returncode == 0
    assert server.http.get("/api/v1/audit_log", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "address", ["", "x", "x@y", "@example.org", "a b@example.org", "é@example.org", "x" * 255 + "@example.org", "--x"]
)
def test_what_is_no_address_is_refused(config: Path, state: Path, dsn: str, address: str) -> None:
    put_key(state)
    refused = run(config, address)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr
    assert roles(dsn) == {}


def test_a_database_that_is_away_is_a_sentence(config: Path, state: Path) -> None:
    put_key(state)
    config.write_text(f'db_uri = "{AWAY}"\nstate_directory = "{state}"\n')
    refused = run(config, ADMIN)
    assert (refused.returncode, refused.stdout) == (69, "")
    assert "is not available" in refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_database_without_the_tables_is_a_sentence(config: Path, state: Path, empty_dsn: str) -> None:
    put_key(state)
    config.write_text(f'db_uri = "{empty_dsn}"\nstate_directory = "{state}"\n')
    refused = run(config, ADMIN)
    assert refused.returncode == 69
    assert "database_upgrade_schema" in refused.stderr


def test_a_role_that_may_not_write_is_a_sentence(config: Path, state: Path, dsn: str) -> None:
    put_key(state)
    with psycopg.connect(dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS reader_of_accounts")
        connection.execute("CREATE ROLE reader_of_accounts LOGIN")
        connection.execute("GRANT SELECT ON accounts TO reader_of_accounts")
    try:
        text = make_conninfo(dsn, user="reader_of_accounts")
        config.write_text(f'db_uri = "{text}"\nstate_directory = "{state}"\n')
        refused = run(config, ADMIN)
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP OWNED BY reader_of_accounts")
            connection.execute("DROP ROLE reader_of_accounts")
    assert refused.returncode == 69, refused.stderr
    assert "deploy-database.yml" in refused.stderr


@pytest.mark.parametrize(
    ("key", "said"),
    [("short", "16 to 64"), ("", "16 to 64"), ("k" * 65, "16 to 64"), ("k" * 20 + "\n" + "k" * 20, "one key")],
)
def test_a_key_that_is_none_is_a_sentence(config: Path, state: Path, dsn: str, key: str, said: str) -> None:
    put_key(state, key)
    refused = run(config, ADMIN)
    assert refused.returncode == 78
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert roles(dsn) == {}


def test_a_wrong_configuration_is_a_sentence(config: Path, state: Path) -> None:
    config.write_text("no_such_key = 1\n")
    assert run(config, ADMIN).returncode == 78
    missing = run(state / "none.toml", ADMIN)
    assert missing.returncode == 78
    assert "does not exist" in missing.stderr


def test_a_key_that_hosts_share_is_used_and_never_made(config: Path, state: Path, dsn: str) -> None:
    shared = state.parent / "shared_key"
    config.write_text(f'{config.read_text()}account_id_key = "{shared}"\n')
    refused = run(config, ADMIN)
    assert refused.returncode == 78
    assert str(shared) in refused.stderr
    assert not shared.exists()
    shared.write_text("s" * 32)
    assert run(config, ADMIN).returncode == 0
    assert list(roles(dsn)) == [AccountIds(shared, create=False).of(ADMIN)]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root; run the tests as root for this one")


@pytest.fixture
def service(dsn: str) -> pwd.struct_passwd:
    """Another user than root: the one that may connect to this database by its socket."""
    return pwd.getpwuid(Path(str(conninfo_to_dict(dsn)["host"])).stat().st_uid)


@as_root
@pytest.mark.parametrize("is_there", [True, False])
def test_root_becomes_the_service(
    config: Path, state: Path, dsn: str, service: pwd.struct_passwd, is_there: bool
) -> None:
    """A key that is not there yet is the service's own, as if it had made it."""
    os.chown(state, service.pw_uid, service.pw_gid)
    if is_there:
        put_key(state)
        os.chown(state / KEY_FILE, service.pw_uid, service.pw_gid)
    made = run(config, ADMIN)
    assert made.returncode == 0, made.stderr
    key = state / KEY_FILE
    status = key.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (service.pw_uid, service.pw_gid, 0o600)
    assert list(roles(dsn)) == [AccountIds(key, create=False).of(ADMIN)]
    assert [path.name for path in state.iterdir()] == [KEY_FILE]


@as_root
def test_root_uses_a_key_that_hosts_share_as_the_service_may(
    config: Path, state: Path, dsn: str, service: pwd.struct_passwd
) -> None:
    """It is root's, and the group of the service reads it: as it is on hosts."""
    shared = state.parent / "shared_key"
    config.write_text(f'{config.read_text()}account_id_key = "{shared}"\n')
    shared.write_text("s" * 32)
    shared.chmod(0o640)
    os.chown(state, service.pw_uid, service.pw_gid)
    os.chown(shared, 0, service.pw_gid)
    made = run(config, ADMIN)
    assert made.returncode == 0, made.stderr
    assert list(roles(dsn)) == [AccountIds(shared, create=False).of(ADMIN)]


@as_root
def test_root_says_that_the_service_cannot_read_its_key(
    config: Path, state: Path, dsn: str, service: pwd.struct_passwd
) -> None:
    os.chown(state, service.pw_uid, service.pw_gid)
    put_key(state)  # root's
    refused = run(config, ADMIN)
    assert refused.returncode == 78
    assert "Permission denied" in refused.stderr
    assert roles(dsn) == {}


@as_root
def test_root_makes_no_key_of_its_own(config: Path, state: Path, dsn: str) -> None:
    refused = run(config, ADMIN)
    assert refused.returncode == 78
    assert "login link" in refused.stderr
    assert list(state.iterdir()) == []
    state.rmdir()
    missing = run(config, ADMIN)
    assert missing.returncode == 78
    assert "Start the service once" in missing.stderr
    assert roles(dsn) == {}
    state.mkdir()
