"""Registration, login and update of probes; the keys behind their tokens."""

import base64
import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import pytest

from api.key_file import LEEWAY_S, create_key_file, read_keys
from api.signing import KEY_FILE, LIFETIME_S

UNREACHABLE = "host=/nonexistent dbname=ooni"
FACTS = {
    "password": "a" * 64,
    "platform": "linux",
    "probe_asn": "AS0",
    "probe_cc": "ZZ",
    "software_name": "miniooni",
    "software_version": "0.1.0-dev",
    "supported_tests": ["web_connectivity"],
}
OTHER_KEY = "k" * 64


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any]) -> Any:
    """An API without a database, with two workers."""
    return start_api(UNREACHABLE, workers=2, threads=4)


def register(api: Any, **changes: object) -> Any:
    return api.http.post("/api/v1/register", json={**FACTS, **changes})


def login(api: Any, username: object, **more: object) -> Any:
    return api.http.post("/api/v1/login", json={"username": username, "password": "x", **more})


def key_of(api: Any) -> str:
    return read_keys(api.directory / "state" / KEY_FILE)[0]


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_register_login_and_what_is_in_the_tokens(api: Any) -> None:
    before = int(time.time())
    response = register(api)
    assert (response.status_code, set(response.json())) == (200, {"client_id"})
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    client_id = response.json()["client_id"]
    registered = claims(client_id)
    assert registered == {"iat": registered["iat"], "aud": "probe_login"}
    assert isinstance(registered["iat"], int)
    response = login(api, client_id)
    assert (response.status_code, set(response.json())) == (200, {"token", "expire"})
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    expire = response.json()["expire"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", expire)
    assert before + LIFETIME_S <= datetime.fromisoformat(expire).timestamp() <= time.time() + LIFETIME_S
    token = claims(response.json()["token"])
    assert (token["aud"], token["registration_time"]) == ("probe_token", registered["iat"])
    assert token["exp"] == datetime.fromisoformat(expire).timestamp()
    assert jwt.get_unverified_header(response.json()["token"])["alg"] == "HS256"


def test_the_key_is_one_for_all_workers_and_for_nobody_else(api: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [response.json()["client_id"] for response in pool.map(lambda _: register(api), range(24))]
    key = key_of(api)
    for client_id in ids:
        jwt.decode(client_id, key, algorithms=["HS256"], audience="probe_login")
    path = api.directory / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir() if "token" in file.name] == [KEY_FILE]
    assert key not in api.log()


def test_client_ids_outlive_a_restart_and_do_not_expire(start_api: Callable[..., Any]) -> None:
    api = start_api(UNREACHABLE)
    client_id = register(api).json()["client_id"]
    api.restart()
    assert login(api, client_id).status_code == 200
    ancient = jwt.encode({"iat": 1, "aud": "probe_login"}, key_of(api), algorithm="HS256")
    assert claims(login(api, ancient).json()["token"])["registration_time"] == 1


@pytest.mark.parametrize(
    "username",
    [
        "d5a1b3c4-0000-4000-8000-0123456789ab",
        "x",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9",
        "..",
        "a b",
        base64.b64encode(b"x").decode(),
    ],
)
def test_ids_from_before_they_were_signed_still_log_in(api: Any, username: str) -> None:
    before = api.metric("api_probe_logins_total", result="legacy")
    response = login(api, username)
    assert response.status_code == 200
    assert claims(response.json()["token"])["registration_time"] is None
    assert api.metric("api_probe_logins_total", result="legacy") == before + 1


def forged(**claims: object) -> Callable[[str], str]:
    return lambda key: jwt.encode(claims, key, algorithm="HS256")


@pytest.mark.parametrize(
    "make",
    [
        lambda key: jwt.encode({"iat": 1, "aud": "probe_login"}, OTHER_KEY, algorithm="HS256"),
        lambda key: jwt.encode({"iat": 1, "aud": "probe_login"}, key, algorithm="HS512"),
        lambda key: jwt.encode({"iat": 1, "aud": "probe_login"}, None, algorithm="none"),
        forged(iat=1, aud="probe_token"),
        forged(iat=1, aud="user_auth"),
        forged(iat=1, aud=["probe_login", "probe_token"]),
        forged(iat=1),
        forged(aud="probe_login"),
        forged(aud="probe_login", iat="x"),
        forged(aud="probe_login", iat=None),
        forged(aud="probe_login", iat=int(time.time()) + 10 * LEEWAY_S),
        forged(aud="probe_login", iat=1, exp=2),
    ],
)
def test_wrong_client_ids_are_refused(api: Any, make: Callable[[str], str]) -> None:
    register(api)
    before = api.metric("api_probe_logins_total", result="refused")
    response = login(api, make(key_of(api)))
    assert (response.status_code, response.json()["error"]) == (401, "Invalid credentials")
    assert response.headers["cache-control"] == "no-cache"
    assert api.metric("api_probe_logins_total", result="refused") == before + 1


def test_a_clock_that_is_a_little_ahead_is_put_up_with(api: Any) -> None:
    register(api)
    ahead = int(time.time()) + LEEWAY_S - 60
    client_id = jwt.encode({"iat": ahead, "aud": "probe_login"}, key_of(api), algorithm="HS256")
    assert login(api, client_id).status_code == 200


@pytest.mark.parametrize("body", [{}, {"username": None}, {"username": ""}, {"password": "x"}])
def test_login_without_a_username(api: Any, body: dict[str, object]) -> None:
    response = api.http.post("/api/v1/login", json=body)
    assert (response.status_code, response.json()["error"]) == (401, "Missing credentials")


@pytest.mark.parametrize("declared", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_register_wants_a_json_content_type(api: Any, declared: str | None) -> None:
    headers = {} if declared is None else {"content-type": declared}
    response = api.http.post("/api/v1/register", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["error"]) == (400, "error: JSON expected!")
    response = api.http.post("/api/v1/login", content=b'{"username": "x"}', headers=headers)
    assert response.status_code == 200  # old probes declare nothing


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"null", b'"x"', b"1", b"{", b"\xff\xfe", b"[" * 100_000, b"{}\x00"]
)
@pytest.mark.parametrize(("method", "path"), [("POST", "register"), ("POST", "login"), ("PUT", "update/x")])
def test_what_is_no_json_object(api: Any, method: str, path: str, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = api.http.request(method, f"/api/v1/{path}", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]) == (400, "JSON expected")


@pytest.mark.parametrize("fact", [*FACTS, "network_type", "available_bandwidth", "language", "token", "probe_family"])
@pytest.mark.parametrize("value", [True, {}, [1], [[]], "x" * 5000, "\x00", "\ud800", ["x"] * 1000])
@pytest.mark.parametrize(("method", "path"), [("POST", "register"), ("PUT", "update/some-id")])
def test_wrong_facts_are_named(api: Any, method: str, path: str, fact: str, value: object) -> None:
    content = json.dumps({**FACTS, fact: value}).encode()
    headers = {"content-type": "application/json"}
    response = api.http.request(method, f"/api/v1/{path}", content=content, headers=headers)
    assert response.status_code == 400
    assert fact in response.json()["error"]


@pytest.mark.parametrize("value", [10, 1.5, "10"])
@pytest.mark.parametrize(("method", "path"), [("POST", "register"), ("PUT", "update/some-id")])
def test_facts_may_be_numbers(api: Any, method: str, path: str, value: object) -> None:
    asked = {"available_bandwidth": value, "software_version": value}
    assert api.http.request(method, f"/api/v1/{path}", json=asked).status_code == 200


@pytest.mark.parametrize("value", [None, "", "プローブ", "зонд", "a b"])
def test_facts_may_be_absent_or_in_any_script(api: Any, value: object) -> None:
    assert register(api, software_name=value, platform=value).status_code == 200
    assert api.http.post("/api/v1/register", json={"supported_tests": None}).status_code == 200
    assert api.http.post("/api/v1/register", json={}).status_code == 200


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("value", [1, True, [], {}, "x" * 5000, "\x00", "\ud800"])
def test_wrong_credentials_are_named(api: Any, field: str, value: object) -> None:
    content = json.dumps({"username": "x", "password": "x", field: value}).encode()
    response = api.http.post("/api/v1/login", content=content)
    assert response.status_code == 400
    assert field in response.json()["error"]


@pytest.mark.parametrize("username", ["プローブ", "é", "ID\u200f"])
def test_a_username_is_ascii(api: Any, username: str) -> None:
    response = login(api, username)
    assert response.status_code == 400
    assert "username" in response.json()["error"]


def test_update_says_ok_and_keeps_nothing(api: Any) -> None:
    before = sorted(path for path in api.directory.rglob("*") if path.suffix != ".db")
    response = api.http.put("/api/v1/update/some-id", json={"probe_cc": "IT", "token": "t" * 160, "unknown": [1]})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert sorted(path for path in api.directory.rglob("*") if path.suffix != ".db") == before


@pytest.mark.parametrize("client_id", ["%FF%FE", "%E3%83%97", "x" * 3000, "a%00b"])
def test_update_of_what_is_no_client_id(api: Any, client_id: str) -> None:
    response = api.http.put(f"/api/v1/update/{client_id}", json={})
    assert response.status_code == 400
    assert "client_id" in response.json()["error"]


@pytest.mark.parametrize("path", ["register", "login"])
def test_no_redirect_and_no_other_method(api: Any, path: str) -> None:
    assert api.http.get(f"/api/v1/{path}").status_code == 405
    assert api.http.post(f"/api/v1/{path}/", json={"username": "x"}).status_code == 200


def test_nothing_a_probe_says_is_logged(api: Any) -> None:
    marks = [f"said-by-probe-{number}" for number in range(3)]
    register(api, software_name=marks[0])
    login(api, marks[1])
    api.http.put("/api/v1/update/some-id", json={"probe_id": marks[2]})
    assert not any(mark in api.log() for mark in marks)


# Keys: shared between hosts, changed while running, missing, broken.


def test_hosts_with_the_same_keys_know_each_others_ids(start_api: Callable[..., Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# shared\n{OTHER_KEY}\n\n{'n' * 40}\n")
    one, two = (start_api(UNREACHABLE, probe_token_keys=keys) for _ in range(2))
    client_id = register(one).json()["client_id"]
    assert login(two, client_id).status_code == 200
    jwt.decode(client_id, OTHER_KEY, algorithms=["HS256"], audience="probe_login")
    older = jwt.encode({"iat": 7, "aud": "probe_login"}, "n" * 40, algorithm="HS256")
    assert claims(login(one, older).json()["token"])["registration_time"] == 7
    assert not (one.directory / "state" / KEY_FILE).exists()


def test_keys_change_while_it_runs(start_api: Callable[..., Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    api = start_api(UNREACHABLE, probe_token_keys=keys)
    response = register(api)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "300"
    assert login(api, "x").status_code == 503
    keys.write_text(OTHER_KEY)
    client_id = eventually(lambda: register(api), 200).json()["client_id"]
    keys.write_text(f"{'n' * 64}\n{OTHER_KEY}\n")
    eventually(lambda: login(api, jwt.encode({"iat": 1, "aud": "probe_login"}, "n" * 64, algorithm="HS256")), 200)
    assert login(api, client_id).status_code == 200
    keys.write_text("short")
    time.sleep(1.2)  # the file is looked at once a second
    assert login(api, client_id).status_code == 200  # the last good ones stay
    assert api.http.get("/health").status_code == 200


def eventually(ask: Callable[[], Any], status: int) -> Any:
    deadline = time.monotonic() + 60
    while (response := ask()).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.1)
    return response


def test_a_state_directory_that_cannot_be_written_is_no_reason_not_to_take_measurements(
    start_api: Callable[..., Any], rid: str
) -> None:
    api = start_api(UNREACHABLE, state_directory="/proc/nothing/here")
    assert register(api).status_code == 503
    assert "later" in register(api).json()["error"] or "again" in register(api).json()["error"]
    assert api.submit(b"{}", rid).status_code == 200


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "short\n", "k" * 31, "k" * 64 + "\nshort", "k" * 40 + " x", "é" * 40]
)
def test_files_without_good_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"key|ascii"):
        read_keys(path)


def test_processes_that_make_the_key_at_the_same_time_agree(tmp_path: Path) -> None:
    path = tmp_path / "state" / KEY_FILE
    program = (
        "import sys, time, pathlib; from api.key_file import *; path = pathlib.Path(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(create_key_file(path), *read_keys(path))"
    )
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sum(made == "True" for made, _ in answers) == 1
    assert len({key for _, key in answers}) == 1
    assert [file.name for file in path.parent.iterdir()] == [KEY_FILE]
    assert not create_key_file(path)
