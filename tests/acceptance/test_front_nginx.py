"""What probes, people and those who watch them meet at the front: nginx as the roles deploy it, before a real API."""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from nginx_front import NAME, OONI_API, PROGRAM, Api, Front, Helper, defaults
from tests.slow_queries import eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not on this machine: apt-get install nginx-light")

LIMIT_MB = 2
AT_ONCE = 4
PER_NETWORK = 3
HEADER_SECONDS = 1
CACHE_SECONDS = 1
# The loopback stands for a balancer, whose word about addresses counts; another address of it for a client.
BALANCER = "127.0.0.1"
CLIENT = "127.9.8.7"
# What the API is told of everybody who comes from the loopback where Tor comes in.
TOR = "192.0.0.8"
RID = "20240101T000000Z_webconnectivity_IE_34245_n1_abcdefghijklmnop"
COUNTRIES = {f"{CLIENT}/32": "DE", "198.51.100.0/24": "IT", "192.0.2.0/24": "IR", "2001:db8::/32": "BR"}
LIST = "/api/v1/measurements?limit=1"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Api]:
    """A real API."""
    directory = tmp_path_factory.mktemp("api")
    writer = MMDBWriter(6, ipv4_compatible=True)
    for network, country in COUNTRIES.items():
        writer.insert_network(IPSet([network]), {"country": {"iso_code": country}})
    writer.to_db_file(str(directory / "country.mmdb"))
    server = Api(
        directory,
        db_uri=module_dsn,
        threads=8,
        max_received_bytes=LIMIT_MB * 1024 * 1024,
        geo_country_db=directory / "country.mmdb",
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """What gets POST / of old probes."""
    server = Helper()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def front(api: Api, helper: Helper) -> Iterator[Front]:
    """A real nginx with the roles' configuration."""
    server = Front(
        api.port,
        ooni_api_body_limit_mb=LIMIT_MB,
        ooni_api_requests_at_once=AT_ONCE,
        ooni_api_connections_per_network=PER_NETWORK,
        ooni_api_test_helper=f"127.0.0.1:{helper.port}",
        ooni_api_cache_seconds=CACHE_SECONDS,
        nginx_trusted_proxies=[BALANCER],
        nginx_client_header_seconds=HEADER_SECONDS,
        nginx_client_body_seconds=HEADER_SECONDS,
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def http(front: Front) -> Iterator[httpx.Client]:
    """A client that comes through the balancer."""
    with httpx.Client(base_url=front.url, headers={"Host": NAME}, timeout=60) as client:
        yield client


def via(address: str) -> dict[str, str]:
    """Return the header that a balancer adds for a client with this address."""
    return {"X-Forwarded-For": address}


def raw(front: Front, request: bytes, source: str = CLIENT) -> socket.socket:
    """Send bytes over a connection of their own and leave it open."""
    connection = socket.create_connection(("127.0.0.1", front.tor_port), timeout=60, source_address=(source, 0))
    connection.sendall(request)
    return connection


def begun_submission(forwarded: str) -> bytes:
    """Return a submission whose body does not come."""
    head = (
        f"POST /report/{RID} HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: {forwarded}\r\nContent-Length: 1000\r\n\r\n"
    )
    return head.encode() + b"{"


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes; a reset is an end as well."""
    received = b""
    with connection:
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def assert_shed(reply: httpx.Response) -> None:
    """Check that the reply says when to come back, as JSON that browsers may read."""
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/json"
    assert 15 <= int(reply.headers["retry-after"]) <= 30
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["cache-control"] == "no-cache"
    assert "again later" in reply.json()["error"]


@pytest.mark.parametrize("asked", [NAME, "www.example.com", "some.bank.example", None])
def test_every_name_in_the_handshake_is_answered_with_the_apis_certificate(front: Front, asked: str | None) -> None:
    with (
        socket.create_connection(("127.0.0.1", front.tls_port), timeout=60) as connection,
        front.trust().wrap_socket(connection, server_hostname=asked) as wrapped,
    ):
        names = wrapped.getpeercert()["subjectAltName"]  # type: ignore[index]
        wrapped.sendall(f"GET /health HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = wrapped.recv(65536)
    assert names == (("DNS", NAME),)
    assert answer.startswith(b"HTTP/1.1 200")


def test_old_tls_is_refused(front: Front) -> None:
    context = front.trust()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    with (
        socket.create_connection(("127.0.0.1", front.tls_port), timeout=60) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname=NAME)


def test_too_large_a_body_is_refused_in_json_that_says_what_to_do(http: httpx.Client) -> None:
    reply = http.post(f"/report/{RID}", content=bytes(LIMIT_MB * 1024 * 1024 + 1))
    assert (reply.status_code, reply.headers["content-type"]) == (413, "application/json")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert f"larger than {LIMIT_MB} MB" in reply.json()["error"]


def test_largest_body_is_taken(http: httpx.Client) -> None:
    body = json.dumps({"format": "json", "content": {"test_name": "web_connectivity", "filler": ""}})
    body = body.replace('"filler": ""', f'"filler": "{"x" * (LIMIT_MB * 1024 * 1024 - len(body))}"')
    reply = http.post(f"/report/{RID}", content=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["measurement_uid"]


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /health HTTP/1.1\r\nHost: a\r\n", begun_submission("203.0.113.1")],
    ids=["nothing", "headers", "body"],
)
def test_client_that_dawdles_is_cut_off(front: Front, begun: bytes) -> None:
    assert everything(raw(front, begun)) == b""


def test_list_is_cached_for_everybody_but_not_for_those_with_an_account(http: httpx.Client) -> None:
    path = f"{LIST}&probe_cc=ZA"
    first, second = http.get(path), http.get(path, headers={"Origin": "https://explorer.example.org"})
    assert [first.headers["x-cache-status"], second.headers["x-cache-status"]] == ["MISS", "HIT"]
    assert first.headers["cache-control"] == second.headers["cache-control"] == "max-age=60"
    assert http.head(path).headers["x-cache-status"] == "HIT"
    account = http.get(path, headers={"Authorization": "Bearer x"})
    assert account.headers["x-cache-status"] == "BYPASS"


@pytest.mark.parametrize(
    ("path", "second"),
    [
        ("/api/v1/collectors", "HIT"),
        ("/robots.txt", "HIT"),
        # Not there yet: whoever looks too early must not be told so from a cache.
        ("/api/v1/measurement_meta?report_id=20240101T000000Z_ndt_IT_1_n1_aaaaaaaaaaaaaaaa", "MISS"),
        ("/api/v1/test-list/urls?country_code=it&limit=x", "MISS"),
    ],
)
def test_cache_keeps_what_the_api_lets_it_keep(http: httpx.Client, path: str, second: str) -> None:
    assert [http.get(path).headers["x-cache-status"] for _ in range(2)] == ["MISS", second]


def test_cache_is_not_asked_for_what_is_never_kept(http: httpx.Client) -> None:
    assert [http.get("/api/v1/test-helpers").headers["x-cache-status"] for _ in range(2)] == ["BYPASS", "BYPASS"]


@contextmanager
def standing_still(api: Api) -> Iterator[None]:
    """Let the API take connections and answer nothing meanwhile."""
    api.freeze(frozen=True)
    try:
        yield
    finally:
        api.freeze(frozen=False)


def test_what_has_expired_is_asked_anew_for_the_first_and_all_others(api: Api, front: Front) -> None:
    path = f"{front.url}/?old"
    assert [httpx.get(path).headers["x-cache-status"] for _ in range(2)] == ["MISS", "HIT"]
    time.sleep(CACHE_SECONDS + 1.5)
    with ThreadPoolExecutor(2) as pool:
        with standing_still(api):
            asked = [pool.submit(httpx.get, path, timeout=60) for _ in range(2)]
            eventually(lambda: front.requests_at_work() >= 2, "nginx answers with what is old")
        found = [each.result() for each in asked]
    assert [reply.status_code for reply in found] == [200, 200]
    assert "EXPIRED" in {reply.headers["x-cache-status"] for reply in found} <= {"EXPIRED", "HIT"}


def test_same_question_at_the_same_time_reaches_the_api_once(api: Api, front: Front) -> None:
    path = f"{LIST}&probe_cc=BW"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with standing_still(api):
            asked = [
                pool.submit(httpx.get, front.url + path, headers=via(f"198.51.{number}.1"), timeout=60)
                for number in range(AT_ONCE)
            ]
            # At least: a page that is being made anew keeps its connection at work for a moment after its answer.
            eventually(lambda: front.requests_at_work() >= AT_ONCE, "not all questions arrived")
        found = [each.result().headers["x-cache-status"] for each in asked]
    assert sorted(found) == ["HIT"] * (AT_ONCE - 1) + ["MISS"]


def test_quota_of_the_client_that_filled_the_cache_is_nobody_elses(http: httpx.Client) -> None:
    path = f"{LIST}&probe_cc=LS"
    first, second = http.get(path, headers=via("198.51.100.9")), http.get(path, headers=via("192.0.2.1"))
    assert [first.headers["x-cache-status"], second.headers["x-cache-status"]] == ["MISS", "HIT"]
    assert int(first.headers["x-ratelimit-remaining"]) > 0
    assert "x-ratelimit-remaining" not in second.headers


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/measurements?limit=-1", "/health"])
def test_errors_and_health_are_not_cached(http: httpx.Client, path: str) -> None:
    assert [http.get(path).headers.get("x-cache-status", "none") for _ in range(2)] in (["MISS"] * 2, ["none"] * 2)


def test_submissions_are_never_cached_nor_counted(front: Front, http: httpx.Client) -> None:
    for number in range(10 * PER_NETWORK):
        body = json.dumps({"format": "json", "content": {"test_name": "ndt", "number": number}})
        reply = http.post(f"/report/{RID}", content=body, headers=via("203.0.113.50"))
        assert reply.status_code == 200, reply.text
        assert reply.headers.get("x-cache-status") is None


PROBE_POSTS = ["/report", "/report/", "//report", f"/report/{RID}", f"/report/{RID}/close", "/api/v1/check-in"]
PROBE_POSTS += [
    "/api/v1/check-in/",
    "/api/v1/register",
    "/api/v1/login",
    "/api/v1/submit_measurement",
    "/bouncer/net-tests",
]


@pytest.mark.parametrize("path", PROBE_POSTS)
def test_probes_are_never_redirected(front: Front, path: str) -> None:
    with httpx.Client(verify=front.trust(), timeout=60) as client:
        reply = client.post(f"https://127.0.0.1:{front.tls_port}{path}", content="{}", headers={"Host": NAME})
    assert not reply.is_redirect


def test_submission_without_tls_keeps_method_and_body_on_its_way_to_tls(front: Front) -> None:
    plain = f"http://127.0.0.1:{front.plain_port}/report"
    assert httpx.get(plain, headers={"Host": NAME}).status_code == 301
    reply = httpx.post(plain, content="{}", headers={"Host": NAME})
    assert (reply.status_code, reply.headers["location"]) == (308, f"https://{NAME}/report")


@pytest.mark.parametrize(
    ("source", "said", "address"),
    [
        (CLIENT, "198.51.100.9", TOR),
        (BALANCER, "198.51.100.9", "198.51.100.9"),
        (BALANCER, "192.0.2.66, 198.51.100.9", "198.51.100.9"),
        (BALANCER, "2001:db8::9", "2001:db8::9"),
        (BALANCER, "nonsense", TOR),
    ],
)
def test_what_a_client_says_about_its_address_is_replaced(
    front: Front, helper: Helper, source: str, said: str, address: str
) -> None:
    claims = "".join(f"{name}: 192.0.2.66\r\n" for name in ("X-Real-IP", "X-Client-IP"))
    request = f"POST / HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: {said}\r\n{claims}Content-Length: 2\r\n"
    everything(raw(front, f"{request}Connection: close\r\n\r\n{{}}".encode(), source))
    assert helper.headers["x-forwarded-for"] == address
    assert helper.headers["x-real-ip"] == address


@pytest.mark.parametrize(
    ("source", "said", "country"),
    [
        (CLIENT, "192.0.2.66", "ZZ"),
        (BALANCER, "192.0.2.66, 198.51.100.9", "IT"),
        (BALANCER, "2001:db8::9", "BR"),
    ],
)
def test_probe_cannot_choose_its_country(front: Front, source: str, said: str, country: str) -> None:
    head = f"POST /api/v1/check-in HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: {said}\r\nX-Real-IP: 192.0.2.66\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    answer = everything(raw(front, head.encode(), source))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["probe_cc"] == country


def test_probe_that_comes_over_tls_is_who_it_is(front: Front) -> None:
    head = f"POST /api/v1/check-in HTTP/1.1\r\nHost: {NAME}\r\nX-Real-IP: 192.0.2.66\r\nContent-Length: 2\r\n"
    address = ("127.0.0.1", front.tls_port)
    with (
        socket.create_connection(address, timeout=60, source_address=(CLIENT, 0)) as connection,
        front.trust().wrap_socket(connection, server_hostname=NAME) as wrapped,
    ):
        wrapped.sendall(f"{head}Connection: close\r\n\r\n{{}}".encode())
        answer = b"".join(iter(lambda: wrapped.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["probe_cc"] == "DE"


def test_all_of_tor_has_one_quota_and_the_host_itself_none(front: Front) -> None:
    def left(port: int, source: str) -> str | None:
        scheme = "https" if port == front.tls_port else "http"
        with httpx.Client(transport=httpx.HTTPTransport(verify=front.trust(), local_address=source)) as client:
            path = f"{LIST}&probe_asn={port}{source[-1]}"
            return client.get(f"{scheme}://127.0.0.1:{port}{path}", timeout=60).headers.get("x-ratelimit-remaining")

    assert left(front.tor_port, CLIENT) is not None
    assert left(front.tor_port, "127.0.0.1") is not None
    assert left(front.tls_port, "127.0.0.1") is None


@pytest.mark.parametrize(
    ("crowd", "neighbour", "stranger"),
    [
        ("203.0.113.{}", "203.0.113.200", "203.0.114.1"),
        ("2001:db8:0:7::{}", "2001:db8:0:7:ffff::1", "2001:db8:0:8::1"),
    ],
)
def test_open_connections_of_one_network_leave_room_for_the_others(
    front: Front, http: httpx.Client, crowd: str, neighbour: str, stranger: str
) -> None:
    with ExitStack() as stack:
        # They are cut off soon, so each round opens its own.
        def refused() -> httpx.Response | None:
            for number in range(1, PER_NETWORK + 1):
                stack.enter_context(raw(front, begun_submission(crowd.format(number)), BALANCER))
            reply = http.get("/health", headers=via(neighbour))
            return reply if reply.status_code != 200 else None

        assert_shed(eventually(refused, "a network may have any number of connections"))
        assert http.get("/health", headers=via(stranger)).status_code == 200
    eventually(lambda: http.get("/health", headers=via(neighbour)).status_code == 200, "the network stays locked out")


def test_one_network_gets_a_quarter_of_the_places_unless_told_otherwise() -> None:
    given = defaults(OONI_API)
    assert 4 * given["ooni_api_connections_per_network"] == given["ooni_api_requests_at_once"]


def test_tor_users_are_not_counted_as_one_network(front: Front) -> None:
    with ExitStack() as stack:
        for _ in range(2 * PER_NETWORK):
            head = f"POST /report HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 9\r\n\r\n"
            stack.enter_context(raw(front, head.encode(), CLIENT))
        assert httpx.get(f"{front.url}/health").status_code == 200


def test_requests_beyond_what_the_api_can_queue_are_shed_at_once(api: Api, front: Front, http: httpx.Client) -> None:
    answers: list[int] = []

    def ask(number: int) -> None:
        reply = httpx.get(f"{front.url}{LIST}&probe_asn={number}", headers=via(f"198.51.{number}.1"), timeout=120)
        answers.append(reply.status_code)

    with standing_still(api):
        waiting = [threading.Thread(target=ask, args=(number,)) for number in range(1, AT_ONCE + 1)]
        for thread in waiting:
            thread.start()
        asked = 0

        def shed() -> httpx.Response | None:
            nonlocal asked
            asked += 1
            try:
                return http.get(f"{LIST}&probe_asn={1000 + asked}", headers=via("192.0.2.1"), timeout=1)
            except httpx.TimeoutException:  # the others were not all there yet
                return None

        assert_shed(eventually(shed, "requests queue without end"))
    for thread in waiting:
        thread.join()
    assert set(answers) <= {200, 503}
    assert 200 in answers


def test_documentation_page_shows_no_foreign_description(front: Front, http: httpx.Client) -> None:
    for path in ("/apidocs/?url=https://evil.example/x", "/%61pidocs?a=1&ur%6Cs=x", "//apidocs?URL=x"):
        reply = http.get(front.url + path)
        assert (reply.status_code, reply.headers["content-type"]) == (403, "application/json")
        assert "url" in reply.json()["error"]


def test_spool_is_not_public(http: httpx.Client) -> None:
    reply = http.get("/measurement_spool/2024010100_IT_ndt/x.post")
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/json")


def test_long_answers_are_compressed_and_carry_the_security_headers(http: httpx.Client) -> None:
    path = "/api/v1/test-list/urls?country_code=IT&limit=50"
    whole = http.get(path, headers={"Accept-Encoding": "identity"})
    assert int(whole.headers["content-length"]) > 1024
    reply = http.get(path, headers={"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert set(reply.json()) == set(whole.json())
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"


def test_request_that_is_no_http_is_answered_in_json(front: Front) -> None:
    answer = everything(raw(front, b"GET /report HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_api_that_is_away_is_told_with_503_and_old_answers_serve_meanwhile(
    api: Api, front: Front, http: httpx.Client
) -> None:
    page = http.get("/?away")
    assert page.status_code == 200
    time.sleep(CACHE_SECONDS + 1.5)
    api.stop()
    try:
        old = http.get("/?away")
        assert (old.status_code, old.text) == (200, page.text)
        assert old.headers["x-cache-status"] == "STALE"
        assert_shed(http.get(f"{LIST}&probe_cc=MW"))
        assert_shed(http.post(f"/report/{RID}", content="{}"))
        assert_shed(http.get("/health"))
    finally:
        api.start()
    assert http.get(f"{LIST}&probe_cc=MW").status_code == 200


def test_no_address_of_a_client_is_in_any_log(api: Api, front: Front, http: httpx.Client) -> None:
    marked = "198.51.100.231"
    api.stop()
    try:
        assert http.get(f"{LIST}&probe_cc=SZ&secret=1", headers=via(marked)).status_code == 503
        assert http.put("/api/v1/update/lifelong-id", content="{}").status_code == 503
        assert http.put(front.url + "//api/v1/%75pdate/lifelong-id", content="{}").status_code == 503
        everything(raw(front, f"POST /report/{RID} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()))
    finally:
        api.start()
    http.post(f"/report/{RID}", content="{}", headers=via("2001:db8:77::1"))
    for path in ("/api/v1/update/", "//api//v1/%75pdate/"):
        assert http.put(f"{front.url}{path}lifelong-id", content="{}").status_code in {200, 308, 404}
    http.get("/last-of-all", headers=via(marked))
    front.logged("connect() failed")
    lines = front.logged("/last-of-all") + api.log()
    files = [path for path in front.directory.rglob("*") if path.is_file() and "cache" not in path.parts]
    lines += "".join(path.read_text(errors="replace") for path in files if path.suffix == ".log")
    assert not re.search(r"198\.51\.100|203\.0\.11[34]|127\.9\.8\.7|2001:db8", lines)
    assert "secret" not in lines
    assert "lifelong" not in lines
    assert "/api/v1/update/-" in lines
