"""A real SMTP server for tests, which keeps what it is given, and an API that hands its mail to it."""

import asyncio
import re
import ssl
import subprocess
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from flask import Flask

from api.app import create_app
from api.config import ApiSettings
from devstack.ports import free_ports

HOST = "127.0.0.1"
SOURCE = "login@example.org"
EXPLORER = "explorer.example.org"
SESSION_DAYS, LOGIN_DAYS = 2, 7
REDIRECT = f"https://{EXPLORER}/findings?a=1&b=2"
USER, PASSWORD = "backend", "a password, with blanks"

_LINK = re.compile(r'<a href="([^"]*)">Please login here</a>')


class MailServer:
    """An SMTP server at `port` of this machine; `mails` are those that it took."""

    def __init__(self, *, certificate: Path | None = None, tls: str = "", login: bool = False) -> None:
        """Take the file with key and certificate, how it is used (`starttls`, `tls`), and whether a login is needed."""
        self.mails: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.passwords: list[str] = []
        self.answer = "250 OK"
        self.recipient_answer = ""
        self.wait_s = 0.0
        self.port = free_ports(1)[0]
        more: dict[str, Any] = {}
        if tls:
            assert certificate is not None
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            more = {"ssl_context": context} if tls == "tls" else {"tls_context": context, "require_starttls": True}
        if login:
            starttls = tls == "starttls"
            more |= {"authenticator": self._authenticate, "auth_required": starttls, "auth_require_tls": starttls}
        self._controller = Controller(self, hostname=HOST, port=self.port, **more)

    def start(self) -> "MailServer":
        self._controller.start()
        return self

    def stop(self) -> None:
        self._controller.stop()

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.passwords.append(data.password.decode())
        good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        return AuthResult(success=good, handled=False)  # the server answers

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.recipient_answer:
            return self.recipient_answer.format(address)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 a name of aiosmtpd
        await asyncio.sleep(self.wait_s)
        if self.answer.startswith("2"):
            self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
            self.mails.append(envelope)
        return self.answer

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of an API that uses this server without encryption."""
        return {
            "mail_server": HOST,
            "mail_port": self.port,
            "mail_security": "none",
            "mail_source_address": SOURCE,
            "login_redirect_hosts": EXPLORER,
        }

    def token(self, number: int = -1) -> str:
        """The token in the link of a mail."""
        return link_in(self.mails[number]).partition("token=")[2]


def message_of(envelope: Envelope) -> EmailMessage:
    """What was mailed."""
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def link_in(envelope: Envelope) -> str:
    """The address of the link in the HTML part."""
    part = message_of(envelope).get_body(("html",))
    assert part is not None
    (link,) = _LINK.findall(part.get_content())
    return unescape(link)


def make_certificate(directory: Path, *names: str) -> Path:
    """Make a file with a key and a certificate, which signs itself, for names like DNS:localhost and IP:127.0.0.1."""
    key, certificate, both = directory / "key.pem", directory / "certificate.pem", directory / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=mail.example.org", "-addext", f"subjectAltName={','.join(names)}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


def app_with_mail(directory: Path, dsn: str, server: MailServer, **settings: Any) -> Flask:
    """Return the application with a database, whose mail goes to a server."""
    (directory / "objects").mkdir(exist_ok=True)
    fixed = {
        "db_uri": dsn,
        "spool_directory": str(directory / "spool"),
        "spool_min_free_bytes": 1024,
        "state_directory": str(directory / "state"),
        "store_url": f"file://{directory}/objects",
        **server.settings,
        "login_redirect_hosts": (EXPLORER,),
        "session_expiry_days": SESSION_DAYS,
        "login_expiry_days": LOGIN_DAYS,
    }
    return create_app(ApiSettings(**{**fixed, **settings}))
