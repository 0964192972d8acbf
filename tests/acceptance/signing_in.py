"""People who sign in at a deployment: links from its mails, sessions from links, admins made on its host.

The deployment is one's own stack, whose log holds the links, or the one that the environment names: ACCEPTANCE_HOST is
a command that runs the shell command after it on a host of the API (`ssh root@api1.example.org`), ACCEPTANCE_MAILDIR
the directory there in which its mail server keeps what it gets, ACCEPTANCE_REDIRECT where its login links may lead.
"""

import base64
import email
import email.policy
import html.parser
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from service_client import post

MAILED_S = 30.0
STATE = "/var/lib/ooni-api"
LINK_TEXT = "Please login here"
_LOGGED = re.compile(r'open this link.* link="?(https?://[^"\s]+)', re.IGNORECASE)
_LETTERS = "for file in {}/new/*; do [ -f $file ] && cat $file && printf '\\0'; done; true"


@dataclass(frozen=True)
class Person:
    """Somebody with a session."""

    address: str
    bearer: str

    @property
    def headers(self) -> dict[str, str]:
        """Header of the session."""
        return {"Authorization": f"Bearer {self.bearer}"}

    @property
    def claims(self) -> dict[str, Any]:
        """What the session says."""
        return claims_of(self.bearer)


class Deployment:
    """Where people sign in."""

    def __init__(self, http: httpx.Client, redirect_to: str) -> None:
        self.http = http
        self.redirect_to = redirect_to

    def links(self) -> list[str]:
        """Return all login links that were mailed so far."""
        raise NotImplementedError

    def make_admin(self, address: str, *, remove: bool = False) -> None:
        """Make somebody an admin, or an ordinary user again, on the host."""
        raise NotImplementedError

    def session_key(self) -> str:
        """Return the key that sessions are signed with."""
        raise NotImplementedError

    def register(self, address: str, **more: str) -> httpx.Response:
        """Ask for a login link."""
        asked = {"email_address": address, "redirect_to": self.redirect_to, **more}
        return post(self.http, "/api/v1/user_register", asked)

    def links_to(self, address: str) -> list[str]:
        """Return the links that were mailed to an address so far."""
        return [link for link in self.links() if claims_of(token_of(link)).get("email_address") == address]

    def mailed_link(self, address: str) -> str:
        """Ask for a login link and return it once it has been mailed."""
        before = len(self.links_to(address))
        response = self.register(address)
        assert response.status_code == 200, response.text
        deadline = time.monotonic() + MAILED_S
        while len(found := self.links_to(address)) <= before:
            assert time.monotonic() < deadline, f"no link to {address} was mailed"
            time.sleep(0.2)
        return found[-1]

    def follow(self, link: str) -> httpx.Response:
        """Log in with a link, as the web interface does."""
        return self.http.get("/api/v1/user_login", params={"k": token_of(link)})

    def sign_in(self, address: str) -> Person:
        """Log somebody in."""
        response = self.follow(self.mailed_link(address))
        assert response.status_code == 200, response.text
        return Person(address, response.json()["bearer"])

    def forged(self, person: Person, **changed: Any) -> dict[str, str]:
        """Return the header of a token that the deployment's own key signed, with other claims."""
        claims = {name: value for name, value in {**person.claims, **changed}.items() if value is not None}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.session_key(), algorithm='HS256')}"}


class OwnStack(Deployment):
    """A stack like that of `make run`, whose log holds the links."""

    def __init__(self, http: httpx.Client, run_dir: Path, dsn: str) -> None:
        super().__init__(http, "https://explorer.ooni.org/findings")
        self._run_dir = run_dir
        self._environ = {
            **os.environ,
            "OONI_API_CONFIG": str(run_dir / "empty.toml"),
            "OONI_API_DB_URI": dsn,
            "OONI_API_STATE_DIRECTORY": str(run_dir / "state"),
        }

    def links(self) -> list[str]:
        return _LOGGED.findall((self._run_dir / "log/api.log").read_text(errors="replace"))

    def make_admin(self, address: str, *, remove: bool = False) -> None:
        command = [Path(sys.executable).parent / "ooni-api", "make-admin", "-", *(["--remove"] if remove else [])]
        _said(command, self._environ, f"{address}\n")

    def session_key(self) -> str:
        return _first_key((self._run_dir / "state/session_keys").read_text())


class Deployed(Deployment):
    """A deployment with a mail server whose mails can be read."""

    def __init__(self, http: httpx.Client, host: str, maildir: str, redirect_to: str) -> None:
        super().__init__(http, redirect_to)
        self._host = shlex.split(host)
        self._maildir = maildir

    def links(self) -> list[str]:
        letters = self._run(_LETTERS.format(shlex.quote(self._maildir))).split("\0")
        return [link for letter in letters if letter.strip() for link in links_in(letter)]

    def make_admin(self, address: str, *, remove: bool = False) -> None:
        self._run(f"ooni-api make-admin -{' --remove' if remove else ''}", f"{address}\n")

    def session_key(self) -> str:
        return _first_key(self._run(f"cat {STATE}/session_keys"))

    def _run(self, command: str, told: str = "") -> str:
        return _said([*self._host, command], dict(os.environ), told)


class _Anchors(html.parser.HTMLParser):
    """Collects where the anchors of a page lead, and their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._inside = True
            self.found.append((dict(attrs).get("href") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._inside:
            href, text = self.found[-1]
            self.found[-1] = (href, text + data)


def links_in(letter: str) -> Iterator[str]:
    """Yield the login links of a mail, found as the wire contract says: in its HTML, by the text of the anchor."""
    message = email.message_from_string(letter, policy=email.policy.default)
    page = message.get_body(("html",))
    assert page is not None, "a mail without HTML"
    anchors = _Anchors()
    anchors.feed(page.get_content())
    yield from (href for href, text in anchors.found if LINK_TEXT in text)


def token_of(link: str) -> str:
    """Return the token in a login link."""
    return parse_qs(urlsplit(link).query)["token"][0]


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, unchecked."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


def new_address(name: str) -> str:
    """Return an address that nobody had before."""
    return f"{name}.{secrets.token_hex(6)}@example.org"


def _first_key(text: str) -> str:
    return next(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))


def _said(command: list[Any], environ: dict[str, str], told: str) -> str:
    done = subprocess.run(command, env=environ, input=told, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
