"""Sends mail: through the operator's SMTP server, or into the log of a stack on a developer's own machine.

    transport.send(Mail(recipient="somebody@example.org", subject="…", text="…", html="…", link="https://…"))

What goes wrong is told by class and code alone: texts of mail servers quote the recipient.
"""

import contextlib
import smtplib
import socket
import ssl
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from pathlib import Path
from typing import Any, Protocol

import structlog

STARTTLS, TLS, NO_TLS = "starttls", "tls", "none"

STEP_TIMEOUT_S = 10.0
"""How long the mail server may take for one step, in seconds."""

WHOLE_TIMEOUT_S = 30.0
"""How long it may take for a mail, in seconds; then the connection is cut off."""

# Long enough that no address is folded, which would encode it; RFC 5322 allows 998.
_POLICY = SMTP.clone(max_line_length=900)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one person, as text and as HTML."""

    recipient: str
    subject: str
    text: str
    html: str
    link: str
    """What the person is to open."""


class MailFailed(Exception):
    """A mail was not sent; the text says why, and names nobody."""


class MailBusy(MailFailed):
    """As many mails as may be are being sent; try again soon."""


class Transport(Protocol):
    """What takes mails away."""

    def send(self, mail: Mail) -> None:
        """Send a mail, or return when another system has taken it over. Raises MailFailed."""


class SmtpTransport:
    """Hands mails to an SMTP server, a few at a time, so that a slow one does not occupy all threads."""

    def __init__(
        self,
        server: str,
        port: int,
        *,
        security: str,
        username: str,
        password_file: str,
        source_address: str,
        at_once: int,
    ) -> None:
        """Take the server (empty: every mail fails), how to speak to it, and how many mails are sent at once.

        Args:
            server: name or address of the server.
            port: its port.
            security: `starttls`, `tls` from the start, or `none`; certificates are checked against those of the system.
            username: for logging in there; empty for not logging in.
            password_file: file with the password on its first line, read for each mail.
            source_address: who mails come from, in the header and in the envelope.
            at_once: number of mails that this process hands over at the same time.
        """
        self._server = server
        self._port = port
        self._security = security
        self._username = username
        self._password_file = password_file
        self._source = source_address
        self._places = threading.BoundedSemaphore(at_once)

    def send(self, mail: Mail) -> None:
        """Hand a mail over. Raises MailFailed, MailBusy when too many are being sent."""
        if not self._server:
            raise MailFailed("mail_server is not set.")
        if not self._places.acquire(blocking=False):  # who waited here would keep a thread from measurements
            raise MailBusy("As many mails as may be are being sent.")
        try:
            self._hand_over(mail)
        except (OSError, ValueError) as error:  # errors of smtplib and ssl are OSErrors; ValueError: of names and files
            code = getattr(error, "smtp_code", None) or getattr(error, "errno", None)
            raise MailFailed(f"{type(error).__name__}{f' {code}' if code else ''}") from None
        finally:
            self._places.release()

    def _hand_over(self, mail: Mail) -> None:
        message = as_message(mail, self._source)
        password = self._password()
        smtp = self._connected()
        try:
            if self._security == STARTTLS:
                smtp.starttls(context=ssl.create_default_context())
            if self._username:
                smtp.login(self._username, password)
            smtp.send_message(message, from_addr=self._source, to_addrs=[mail.recipient])
            with contextlib.suppress(OSError):  # it has been taken over, whatever is said at parting
                smtp.quit()
        finally:
            smtp.close()

    def _connected(self) -> smtplib.SMTP:
        # Named, because the default is looked up in the DNS and is nobody's business.
        own_name = self._source.rpartition("@")[2]
        if self._security == TLS:
            context = ssl.create_default_context()
            return _BoundedTls(self._server, self._port, own_name, timeout=STEP_TIMEOUT_S, context=context)
        return _Bounded(self._server, self._port, own_name, timeout=STEP_TIMEOUT_S)

    def _password(self) -> str:
        if not self._password_file:
            return ""
        return Path(self._password_file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")


class LogTransport:
    """Writes the link of each mail into the log, for `make run`."""

    def send(self, mail: Mail) -> None:
        """Log the link of a mail."""
        log.info("nothing is mailed here; open this link", link=mail.link)


def as_message(mail: Mail, source_address: str) -> EmailMessage:
    """Return a mail as it is sent. Raises ValueError for line breaks in a header."""
    message = EmailMessage(policy=_POLICY)
    message["Subject"] = mail.subject
    message["From"] = source_address
    message["To"] = mail.recipient
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=source_address.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


class _Bounded(smtplib.SMTP):
    """A connection that is cut off when it takes too long as a whole, though each step is fast enough."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._timer = threading.Timer(WHOLE_TIMEOUT_S, self._cut_off)
        self._timer.daemon = True
        self._timer.start()
        try:
            super().__init__(*args, **options)
        except BaseException:
            self._timer.cancel()
            raise

    def close(self) -> None:
        self._timer.cancel()
        super().close()

    def _cut_off(self) -> None:
        connection = self.sock
        if connection is not None:
            with contextlib.suppress(OSError):
                # Not the method of an SSL socket, which forgets the encryption first.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    """The same, encrypted from the start."""
