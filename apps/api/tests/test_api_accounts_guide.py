"""docs/accounts.md: its lines for a shell give what the text around them says, and its figures are ours."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from people import signed_in_headers

from api.config import ApiSettings, check
from api.login_store import MOST_MAILS, REPEAT_MINUTES
from api.sessions import LINK_LIFETIME_S

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="apt-get install curl jq")

TEXT = (Path(__file__).parents[3] / "docs" / "accounts.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
SIGN_IN, ROLES, EXPUNGE = (
    next(block for block in BLOCKS if name in block)
    for name in ("user_register", "set_account_role", "set_session_expunge")
)


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], module_dsn: str) -> Any:
    """An API set up as `make run` does it."""
    return start_api(
        module_dsn,
        base_url="http://127.0.0.1:8080",
        mail_transport="log",
        login_redirect_hosts="http://localhost:3000",
        quotas_enabled=False,
    )


def run(api: Any, lines: str, **variables: str) -> list[Any]:
    """Run lines in the directory of the API; returns the JSON that they print."""
    log = api.directory / "run" / "log"
    log.mkdir(parents=True, exist_ok=True)
    if not (log / "api.log").exists():
        (log / "api.log").symlink_to(api.log_path)
    script = lines.replace("api=http://127.0.0.1:8080\n", "")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "api": api.url, **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=api.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_sign_in_refresh_and_logout(api: Any) -> None:
    assert SIGN_IN.startswith("api=http://127.0.0.1:8080\n")
    signed_in = {"logged_in": True, "role": "user"}
    assert run(api, SIGN_IN) == [{"msg": "ok"}, signed_in, {}, {"logged_in": False}]


def test_what_admins_do(api: Any, module_dsn: str) -> None:
    admin = signed_in_headers(api, module_dsn, "admin", "admin@example.org")
    me = signed_in_headers(api, module_dsn, "user", "me@example.org")
    bearer = admin["Authorization"].removeprefix("Bearer ")
    assert run(api, ROLES, bearer=bearer) == [{}, {"role": "admin"}]
    assert api.http.get("/api/_/account_metadata", headers=me).json()["role"] == "admin"
    assert run(api, EXPUNGE, bearer=bearer) == [{}]
    assert api.http.get("/api/_/account_metadata", headers=me).json() == {"logged_in": False}


def test_the_figures(module_dsn: str) -> None:
    defaults = ApiSettings()
    assert (
        f"| a link | {LINK_LIFETIME_S // 3600} hours, once; after its first use it works for another {REPEAT_MINUTES}"
        in TEXT
    )
    assert f"`session_expiry_days` ({defaults.session_expiry_days:g})" in TEXT
    assert f"`login_expiry_days` ({defaults.login_expiry_days:g})" in TEXT
    assert f"| links to one account | {MOST_MAILS} an hour" in TEXT


def test_the_settings_are_good() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    check(msgspec.convert(tomllib.loads(shown), ApiSettings))
