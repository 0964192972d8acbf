"""The mail with the login link: what is in it, and how it gets to a real SMTP server, or does not."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mail_server import (
    EXPLORER,
    HOST,
    PASSWORD,
    REDIRECT,
    SOURCE,
    USER,
    MailServer,
    link_in,
    make_certificate,
    message_of,
)

from api import mail
from api.config import ApiSettings, check
from api.login_mail import login_mail
from api.mail import MailFailed, SmtpTransport, as_message
from core.config import ConfigError

ADDRESS = "jane.doe+tag@mail.example.org"
LINK = login_mail(ADDRESS, f"https://{EXPLORER}", "a.b.c")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: apt-get install openssl")


@pytest.fixture
def start() -> Iterator[Callable[..., MailServer]]:
    """Start SMTP servers; stopped at the end of the test."""
    running: list[MailServer] = []

    def begin(**options: Any) -> MailServer:
        running.append(MailServer(**options))
        return running[-1].start()

    yield begin
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    """The mail server of the API of this module."""
    found = MailServer().start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], module_dsn: str, server: MailServer) -> Any:
    """An API that mails through it, one mail at a time."""
    return start_api(module_dsn, threads=4, **server.settings)


@pytest.fixture(autouse=True)
def quiet(server: MailServer, module_dsn: str) -> None:
    """Forget what was mailed before."""
    server.mails.clear()
    server.answer, server.recipient_answer, server.wait_s = "250 OK", "", 0.0
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM login_mails")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"), f"IP:{HOST}", "DNS:localhost")


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts who signed the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


def transport(server: MailServer, security: str = "none", password_file: Path | None = None) -> SmtpTransport:
    return SmtpTransport(
        HOST,
        server.port,
        security=security,
        username=USER if password_file else "",
        password_file=str(password_file or ""),
        source_address=SOURCE,
        at_once=1,
    )


def register(api: Any, address: str = ADDRESS, redirect_to: str = REDIRECT) -> Any:
    return api.http.post("/api/v1/user_register", json={"email_address": address, "redirect_to": redirect_to})


def waiting(dsn: str) -> int:
    """How many mails count at the moment."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM login_mails").fetchone()
    assert row is not None
    return int(row[0])


# What is in it.


def test_the_mail_has_the_link_as_text_and_as_html(api: Any, server: MailServer) -> None:
    response = register(api)
    assert (response.status_code, response.json()) == (200, {"msg": "ok"})
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    (envelope,) = server.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == (SOURCE, [ADDRESS])
    message = message_of(envelope)
    assert message["Subject"] == "OONI Account activation"
    assert (message["From"], message["To"]) == (SOURCE, ADDRESS)
    assert message["Date"]
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    link = link_in(envelope)
    assert link.startswith(f"https://{EXPLORER}/login?token=")
    text = message.get_body(("plain",))
    assert text is not None
    assert f"\n{link}\n" in text.get_content().replace("\r\n", "\n")
    assert EXPLORER in text.get_content()
    reply = api.http.get("/api/v1/user_login", params={"k": server.token()})
    assert reply.json()["email_address"] == ADDRESS


def test_the_address_is_mailed_to_in_lower_case_and_nothing_else_of_it_is_kept(api: Any, server: MailServer) -> None:
    assert register(api, "  Jane.DOE+tag@Mail.Example.ORG ").status_code == 200
    assert server.mails[-1].rcpt_tos == [ADDRESS]
    assert "jane.doe" not in api.log().lower()


def test_the_longest_address_and_the_longest_redirect_arrive_whole(api: Any, server: MailServer) -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 61, "c" * 61, "d" * 61, "org"])
    assert len(address) == 254
    redirect = f"https://{EXPLORER}/".ljust(800, "x")
    assert register(api, address, redirect).status_code == 200
    assert server.mails[-1].rcpt_tos == [address]
    assert message_of(server.mails[-1])["To"] == address
    assert b"=?" not in server.mails[-1].content.split(b"\r\n\r\n")[0]  # type: ignore[union-attr,operator,arg-type]
    assert max(len(line) for line in server.mails[-1].content.split(b"\r\n")) <= 998  # type: ignore[union-attr,arg-type]
    reply = api.http.get("/api/v1/user_login", params={"k": server.token()}).json()
    assert (reply["email_address"], reply["redirect_to"]) == (address, redirect)


@pytest.mark.parametrize(
    "address",
    [
        "a@example.org\r\nBcc: b@example.org",
        "a@example.org\nX-Injected: 1",
        "a@example.org\r\n\r\nanother body",
        "a\r\n@example.org",
        "a@example.org, b@example.org",
        "a@example.org,b@example.org",
        "a@example.org;b@example.org",
        "a@example.org b@example.org",
        "A B <a@example.org>",
        "<a@example.org>",
        '"a b"@example.org',
        "a@b@example.org",
        "a%b@example.org",
        "a@example.org\x00",
        "a@[192.0.2.1]",
        "a@localhost",
        "a@example.org.",
        "a@-example.org",
        "å@example.org",
        "a@exämple.org",
        "a\u202e@example.org",
        "a" * 65 + "@example.org",
        "a@" + "b" * 64 + ".org",
        "<script>@example.org",
        "@example.org",
        "a@",
        "x",
    ],
)
def test_what_is_no_address_gets_nothing(api: Any, server: MailServer, module_dsn: str, address: str) -> None:
    response = register(api, address)
    assert (response.status_code, response.json()["error"]) == (400, "Invalid email address")
    assert "email_address" in response.json()["hint"]
    assert (server.mails, waiting(module_dsn)) == ([], 0)


def test_a_header_never_takes_a_line_break() -> None:
    for recipient in ("a@example.org\nBcc: b@example.org", "a@example.org\r\nX: 1"):
        with pytest.raises(ValueError, match="linefeed"):
            as_message(login_mail(recipient, "https://x.example", "t"), SOURCE)


def test_html_in_an_address_of_the_interface_is_escaped() -> None:
    mailed = login_mail(ADDRESS, 'https://x.example"><script>', "t&<")
    assert "<script>" not in mailed.html
    assert "&quot;&gt;&lt;script&gt;/login?token=t&amp;&lt;" in mailed.html


# How it gets there.


@needs_openssl
@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.usefixtures("trusted")
def test_mail_and_password_go_encrypted(
    start: Callable[..., MailServer], certificate: Path, password_file: Path, security: str
) -> None:
    server = start(certificate=certificate, tls=security, login=True)
    transport(server, security, password_file).send(LINK)
    assert (len(server.mails), server.encrypted, server.passwords) == (1, [True], [PASSWORD])


@needs_openssl
def test_an_api_uses_starttls_with_the_certificates_of_the_system(
    start: Callable[..., MailServer],
    start_api: Callable[..., Any],
    module_dsn: str,
    certificate: Path,
    password_file: Path,
) -> None:
    server = start(certificate=certificate, tls="starttls", login=True)
    settings = {**server.settings, "mail_security": "starttls", "mail_username": USER}
    environment = {"SSL_CERT_FILE": str(certificate)}
    api = start_api(module_dsn, environment=environment, mail_password_file=password_file, **settings)
    assert register(api).status_code == 200
    assert (len(server.mails), server.encrypted) == (1, [True])
    assert PASSWORD not in api.log()


@needs_openssl
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_knows_is_refused(
    start: Callable[..., MailServer], certificate: Path, password_file: Path, security: str
) -> None:
    server = start(certificate=certificate, tls=security, login=True)
    with pytest.raises(MailFailed, match="SSLCertVerificationError"):
        transport(server, security, password_file).send(LINK)
    assert (server.mails, server.passwords) == ([], [])


@needs_openssl
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_another_host_is_refused(
    start: Callable[..., MailServer],
    password_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    security: str,
) -> None:
    other = make_certificate(tmp_path, "DNS:other.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    server = start(certificate=other, tls=security, login=True)
    with pytest.raises(MailFailed, match="SSLCertVerificationError"):
        transport(server, security, password_file).send(LINK)
    assert (server.mails, server.passwords) == ([], [])


def test_a_server_without_starttls_gets_neither_mail_nor_password(
    start: Callable[..., MailServer], password_file: Path
) -> None:
    """As one looks whose offer of encryption somebody on the way took out."""
    server = start()
    with pytest.raises(MailFailed, match="SMTPNotSupportedError"):
        transport(server, "starttls", password_file).send(LINK)
    assert (server.mails, server.passwords) == ([], [])


@needs_openssl
@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_and_one_that_cannot_be_read(
    start: Callable[..., MailServer], certificate: Path, password_file: Path, tmp_path: Path
) -> None:
    server = start(certificate=certificate, tls="starttls", login=True)
    sender = transport(server, "starttls", password_file)
    password_file.write_text("wrong")
    with pytest.raises(MailFailed, match="SMTPAuthenticationError 535"):
        sender.send(LINK)
    with pytest.raises(MailFailed, match="FileNotFoundError"):
        transport(server, "starttls", tmp_path / "none").send(LINK)
    password_file.write_text(f"{PASSWORD}\r\nmore\n")  # it is read for each mail
    sender.send(LINK)
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("answer", "recipient_answer"),
    [("451 later", ""), ("554 no", ""), ("250 OK", "550 no {} here"), ("421 bye", "")],
)
def test_a_mail_that_the_server_refuses_is_an_error_and_does_not_count(
    api: Any, server: MailServer, module_dsn: str, answer: str, recipient_answer: str
) -> None:
    before = api.metric("api_login_mails_total", result="failed")
    server.answer, server.recipient_answer = answer, recipient_answer
    for _ in range(7):  # more than may be mailed
        response = register(api)
        assert (response.status_code, response.json()["error"]) == (400, "Unable to send the email")
        assert "later" in response.json()["hint"]
    assert api.metric("api_login_mails_total", result="failed") == before + 7
    assert waiting(module_dsn) == 0
    assert "login link not mailed" in api.log()
    assert ADDRESS not in api.log()
    server.answer, server.recipient_answer = "250 OK", ""
    assert register(api).status_code == 200


def test_a_mail_server_that_is_away_or_not_set(start_api: Callable[..., Any], module_dsn: str) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))  # nobody listens
        settings = {"mail_port": closed.getsockname()[1], "mail_security": "none", "mail_source_address": SOURCE}
        for server in (HOST, ""):
            api = start_api(module_dsn, mail_server=server, login_redirect_hosts=EXPLORER, **settings)
            response = register(api)
            assert (response.status_code, response.json()["error"]) == (400, "Unable to send the email")
            assert waiting(module_dsn) == 0


def test_a_slow_mail_server_does_not_occupy_all_threads(api: Any, server: MailServer) -> None:
    server.wait_s = 6.0
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(register, api, f"person{number}@example.org") for number in range(8)]
        time.sleep(0.5)
        began = time.monotonic()
        assert api.http.get("/health").status_code == 200
        assert time.monotonic() - began < 5
        replies = [each.result() for each in asked]
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses[0] == 200
    assert statuses[-1] == 503, "one mail at a time, and nobody waits for long"
    refused = [reply for reply in replies if reply.status_code == 503]
    assert all(reply.headers["retry-after"] == "60" for reply in refused)
    assert api.metric("api_login_mails_total", result="busy") == len(refused)


@pytest.mark.parametrize("greeting", [b"", b"220 mail.example.org\r\n"])
def test_a_server_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch, greeting: bytes) -> None:
    """Each byte comes in time, all of them never would."""
    monkeypatch.setattr(mail, "WHOLE_TIMEOUT_S", 0.5)
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(greeting)
            while not over.wait(0.05):
                try:
                    connection.sendall(b"2")
                except OSError:
                    return

    with socket.create_server((HOST, 0)) as listener:
        dripping = threading.Thread(target=drip, args=[listener])
        dripping.start()
        sender = SmtpTransport(
            HOST,
            listener.getsockname()[1],
            security="none",
            username="",
            password_file="",
            source_address=SOURCE,
            at_once=1,
        )
        try:
            with pytest.raises(MailFailed):
                sender.send(LINK)
        finally:
            over.set()
            dripping.join()


# Into the log.


def test_make_run_finds_the_link_in_the_log(start_api: Callable[..., Any], module_dsn: str, api_class: Any) -> None:
    api = start_api(
        module_dsn, base_url="http://127.0.0.1:8080", mail_transport="log", login_redirect_hosts="http://localhost:3000"
    )
    assert register(api, redirect_to="http://localhost:3000/findings").status_code == 200
    (line,) = [line for line in api.log().splitlines() if "/login?token=" in line]
    assert "level=info" in line
    link = line.partition('link="')[2].partition('"')[0]
    assert link.startswith("http://localhost:3000/login?token=")
    token = link.partition("token=")[2]
    assert api.http.get("/api/v1/user_login", params={"k": token}).json()["email_address"] == ADDRESS
    assert ADDRESS not in api.log()


# Settings.

GOOD: dict[str, Any] = {
    "mail_server": "mail.example.org",
    "mail_source_address": "login@example.org",
    "login_redirect_hosts": ("explorer.example.org", "localhost:3000", "http://localhost:3000", "http://[::1]:3000"),
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mail_transport": "log"}, "mail_server is set"),
        ({"mail_transport": "log", "mail_server": "", "base_url": "https://127.0.0.1:8000"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "base_url": "http://api.example.org"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "base_url": "http://10.0.0.1:8000"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "base_url": "http://localhost.example.org"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "bind": "0.0.0.0:8000"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "bind": ":8000"}, "mail_transport"),
        ({"mail_transport": "log", "mail_server": "", "bind": "unix:/run/api.sock"}, "mail_transport"),
        ({"mail_server": "mail.example.org:587"}, "mail_server"),
        ({"mail_server": "a b"}, "mail_server"),
        ({"mail_port": 0}, "mail_port"),
        ({"mail_port": 70000}, "mail_port"),
        ({"mail_source_address": ""}, "mail_source_address"),
        ({"mail_source_address": "OONI <login@example.org>"}, "mail_source_address"),
        ({"mail_source_address": "login@example.org\nBcc: x@example.org"}, "mail_source_address"),
        ({"mail_username": "x"}, "mail_password_file"),
        ({"mail_password_file": "/x"}, "mail_username"),
        ({"mail_username": "x", "mail_password_file": "/x", "mail_security": "none"}, "mail_security"),
        ({"login_redirect_hosts": ("https://explorer.example.org",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("http://explorer.example.org",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("Explorer.example.org",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("*.example.org",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("explorer.example.org/",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("explorer.example.org.",)}, "login_redirect_hosts"),
        ({"login_redirect_hosts": ("",)}, "login_redirect_hosts"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(ApiSettings(**{**GOOD, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mail_server": ""},
        {"mail_server": "192.0.2.1"},
        {"mail_server": "2001:db8::1", "mail_security": "tls", "mail_port": 465},
        {"mail_username": "x", "mail_password_file": "/x"},
        {"mail_transport": "log", "mail_server": ""},
        {"mail_transport": "log", "mail_server": "", "base_url": "http://localhost:8080", "bind": "[::1]:8080"},
    ],
)
def test_good_settings(changes: dict[str, Any]) -> None:
    check(ApiSettings(**{**GOOD, **changes}))
