"""What people with accounts meet at the front: their replies are nobody else's, and no log holds their secrets."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from nginx_front import NAME, PROGRAM, Api, Front

from api.account_ids import AccountIds
from api.key_file import KeyFile
from api.sessions import SessionTokens

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not on this machine: apt-get install nginx-light")

LIMIT_MB = 2
PERSON = "jane.doe+front@example.org"
LIST = "/api/v1/measurements?limit=1&since=2024-01-01&until=2024-01-02"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Api]:
    """A real API that says all it would ever say, and whose mail server is away."""
    server = Api(
        tmp_path_factory.mktemp("api"),
        db_uri=module_dsn,
        threads=8,
        max_received_bytes=LIMIT_MB * 1024 * 1024,
        log_level="DEBUG",
        mail_transport="smtp",
        mail_server="127.0.0.1",
        mail_port=9,
        mail_security="none",
        mail_source_address="login@example.org",
        login_redirect_hosts="explorer.example.org",
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def front(api: Api) -> Iterator[Front]:
    """A real nginx before it, whose cache keeps what nobody forbids."""
    server = Front(api.port, ooni_api_body_limit_mb=LIMIT_MB, ooni_api_cache_seconds=60)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def http(front: Front) -> Iterator[httpx.Client]:
    """A client."""
    with httpx.Client(base_url=front.url, headers={"Host": NAME}, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def session(api: Api, module_dsn: str) -> dict[str, str]:
    """The header of somebody who is signed in."""
    state = api.directory / "state"
    account_id = AccountIds(state / "account_id_key", create=True).of(PERSON)
    with psycopg.connect(module_dsn) as connection:
        connection.execute("INSERT INTO accounts (account_id, role) VALUES (%s, 'user')", [account_id])
    tokens = SessionTokens(KeyFile(state / "session_keys", create=True), session_expiry_days=1, login_expiry_days=1)
    return {"Authorization": f"Bearer {tokens.begin(account_id, PERSON, 'user', 0)}"}


def status_of_cache(reply: httpx.Response) -> str:
    return reply.headers["x-cache-status"]


def test_somebody_with_an_account_neither_fills_the_cache_nor_is_served_from_it(
    http: httpx.Client, session: dict[str, str]
) -> None:
    path = f"{LIST}&probe_cc=ZA"
    asked = [session, session, {}, {}, session]
    replies = [http.get(path, headers=headers) for headers in asked]
    assert [reply.status_code for reply in replies] == [200] * len(asked)
    assert [status_of_cache(reply) for reply in replies] == ["BYPASS", "BYPASS", "MISS", "HIT", "BYPASS"]


@pytest.mark.parametrize("credential", ["Bearer x", "bearer x", "Basic eDp4", "x" * 7000])
def test_any_authorization_is_an_account_to_the_cache(http: httpx.Client, credential: str) -> None:
    path = f"/robots.txt?{secrets.token_hex(8)}"
    asked = [{"Authorization": credential}, {}, {"Authorization": credential}, {}]
    assert [status_of_cache(http.get(path, headers=headers)) for headers in asked] == [
        "BYPASS",
        "MISS",
        "BYPASS",
        "HIT",
    ]


def test_who_is_signed_in_is_told_to_nobody_else(http: httpx.Client, session: dict[str, str]) -> None:
    path = "/api/_/account_metadata"
    for _ in range(2):
        mine = http.get(path, headers=session)
        assert (mine.status_code, mine.json()) == (200, {"logged_in": True, "role": "user"})
        assert "private" in mine.headers["cache-control"]
        assert "Authorization" in mine.headers["vary"]
        anybody = http.get(path)
        assert (anybody.status_code, anybody.json()["logged_in"]) == (401, False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/incidents/create"),
        ("POST", "/api/_/measurement_feedback"),
        ("POST", "/api/_/ooni_run/create"),
        ("POST", "/api/v2/oonirun/links"),
        ("PUT", "/api/v2/oonirun/links/10000"),
        ("POST", "/api/_/url-priorities/update"),
        ("POST", "/api/v1/url-submission/update-url"),
        ("POST", "/api/v1/access_tokens"),
        ("DELETE", "/api/v1/access_tokens/1"),
    ],
)
def test_writing_reaches_the_api_with_its_method_and_its_answer_is_never_kept(
    http: httpx.Client, method: str, path: str
) -> None:
    for _ in range(2):
        reply = http.request(method, path, content=b"{}" if method != "DELETE" else None)
        assert (reply.status_code, reply.headers["content-type"]) == (401, "application/json")
        assert reply.json()["error"] == "Authentication required"
        assert "x-cache-status" not in {name.lower() for name in reply.headers}
    assert http.request(method, f"{path}?x=1", headers={"Content-Type": "application/json"}).status_code == 401


def test_body_beyond_the_limit_of_people_is_refused_in_json(http: httpx.Client, session: dict[str, str]) -> None:
    for size in (1024 * 1024 + 1, LIMIT_MB * 1024 * 1024 + 1):  # what the API takes from people, what nginx takes
        text = "x" * size
        reply = http.post("/api/v1/incidents/create", json={"title": text}, headers=session)
        assert (reply.status_code, reply.headers["content-type"]) == (413, "application/json")
        assert reply.json()["error"]


def everything_logged(api: Api, front: Front) -> str:
    """Return all lines of nginx, its errors and the API."""
    files = [path for path in front.directory.rglob("*.log") if path.is_file()]
    return front.all_lines() + api.log() + "".join(path.read_text(errors="replace") for path in files)


def on_disk(directory: Path) -> bytes:
    """Return what is in all files below a directory."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_no_credential_and_no_e_mail_address_is_logged_whether_the_api_answers_or_not(
    api: Api, front: Front, http: httpx.Client, session: dict[str, str]
) -> None:
    bearer = session["Authorization"].removeprefix("Bearer ")
    link = f"linktoken{secrets.token_hex(16)}"
    access_token = f"ooni_{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"
    address = {"email_address": PERSON, "redirect_to": "https://explorer.example.org/login"}

    def ask_everything() -> set[int]:
        secret = {"Referer": f"https://explorer.example.org/login?token={link}"}
        replies = [
            http.get(f"/api/v1/user_login?k={link}", headers=secret),
            http.get(front.url + f"//api/v1/user_login?x=1&k={link}", headers=secret),
            http.get("/api/v1/user_refresh_token", headers={"Authorization": f"Bearer {bearer}"}),
            http.get("/api/v1/access_tokens", headers={"Authorization": f"Bearer {access_token}"}),
            http.get(f"/api/v1/get_account_role/{PERSON}", headers=session),
            http.get(f"/api/v1/get_account_role/{PERSON.replace('@', '%40')}", headers=session),
            http.get(f"/api/v1/get_account_role/{PERSON.replace('@', '%2540')}", headers=session),
            http.get(front.url + f"//api/v1/get_%61ccount_role/{PERSON}", headers=session),
            http.post("/api/v1/user_register", json=address),
            http.post("/api/v1/set_account_role", json={"email_address": PERSON, "role": "user"}, headers=session),
        ]
        return {reply.status_code for reply in replies}

    assert ask_everything() <= {200, 308, 400, 401, 404}
    api.stop()
    try:
        assert ask_everything() == {503}
    finally:
        api.start()
    http.get("/last-of-these")
    front.logged("connect() failed")
    front.logged("/last-of-these")
    lines = everything_logged(api, front)
    assert "/api/v1/get_account_role/-" in lines
    assert 'path="/api/v1/user_login"' in lines
    for secret in (bearer, bearer.split(".")[2], link, access_token):
        assert secret not in lines
    assert [line for line in lines.splitlines() if re.search(r"jane\.doe|Authorization|Bearer", line)] == []
    for place in (front.directory / "cache", front.directory / "temp"):
        kept = on_disk(place)
        assert bearer.encode() not in kept
        assert PERSON.encode() not in kept


def test_no_e_mail_address_is_in_the_database_nor_among_the_files_of_the_api(
    api: Api, http: httpx.Client, session: dict[str, str], module_dsn: str
) -> None:
    address = {"email_address": PERSON, "redirect_to": "https://explorer.example.org/login"}
    assert http.post("/api/v1/user_register", json=address).status_code == 400, "the mail server is away"
    assert http.get("/api/v1/user_refresh_token", headers=session).status_code == 200
    with psycopg.connect(module_dsn) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            " AND table_name !~ '^fastpath_[0-9]'"
        ).fetchall()
        rows = [
            json.dumps(row)
            for (name,) in tables
            for row in connection.execute(f'SELECT row_to_json(t) FROM "{name}" t LIMIT 1000')  # a name of the catalog
        ]
    assert rows
    assert not [row for row in rows if "jane.doe" in row]
    assert [line for line in on_disk(api.directory).splitlines() if b"jane.doe" in line] == []
