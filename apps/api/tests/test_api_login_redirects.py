"""Where the login leads: to web interfaces that the operator named, however strange an address is written."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from login_client import JANE, forget_everybody, register
from mail_server import EXPLORER, MailServer, app_with_mail

from api.login_redirects import RedirectHosts


@pytest.fixture(scope="module")
def app(login_app: Flask) -> Flask:
    return login_app


@pytest.fixture(autouse=True)
def nobody(module_dsn: str, smtp: MailServer) -> None:
    """Nobody has signed in yet."""
    smtp.mails.clear()
    forget_everybody(module_dsn)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


HOSTS = RedirectHosts(
    (EXPLORER, "kiosk.example.org", "run.example.org:8443", "http://localhost:3000", "http://[::1]:3000")
)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (f"https://{EXPLORER}", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}/", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}/a/b?c=d&e=%20|{{}}#f'", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}?a", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}#a", f"https://{EXPLORER}"),
        (f"HTTPS://{EXPLORER.upper()}/", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}:443/", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}//evil.example/", f"https://{EXPLORER}"),
        (f"https://{EXPLORER}/@evil.example/", f"https://{EXPLORER}"),
        ("https://run.example.org:8443/", "https://run.example.org:8443"),
        ("http://localhost:3000/findings", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_addresses_that_people_may_be_led_to(address: str, origin: str) -> None:
    assert HOSTS.origin_of(address) == origin


BAD_REDIRECTS = [
    *("", "/", "/login", "//explorer.example.org/", "explorer.example.org", "https:", "https://", "https:///", "x"),
    f"http://{EXPLORER}/",
    f"http://{EXPLORER}:443/",
    f"ftp://{EXPLORER}/",
    f"javascript://{EXPLORER}/%0aalert(1)",
    f"data:text/html,https://{EXPLORER}/",
    f"https://{EXPLORER}.evil.example/",
    f"https://evil.example/{EXPLORER}",
    f"https://evil.example#{EXPLORER}",
    f"https://evil{EXPLORER}/",
    f"https://sub.{EXPLORER}/",
    f"https://{EXPLORER}@evil.example/",
    f"https://evil.example@{EXPLORER}/",
    f"https://a:b@{EXPLORER}/",
    f"https://{EXPLORER}:443@evil.example/",
    f"https://{EXPLORER}\\@evil.example/",
    f"https://evil.example\\@{EXPLORER}/",
    f"https:\\\\{EXPLORER}/",
    f"https:/{EXPLORER}/",
    f"https:{EXPLORER}/",
    f"https:///{EXPLORER}/",
    f"https://{EXPLORER}/\\evil.example",
    f"https://{EXPLORER}./",
    f"https://{EXPLORER}:8443/",
    f"https://{EXPLORER}:/",
    f"https://{EXPLORER}:0443/",
    f"https://{EXPLORER}:99999999/",
    f"https://{EXPLORER}:-1/",
    f"https://{EXPLORER}:４４３/",
    f"https://{EXPLORER}%2eevil.example/",
    f"https://{EXPLORER}%00.evil.example/",
    f"https://{EXPLORER};evil.example/",
    f"https://{EXPLORER},evil.example/",
    f" https://{EXPLORER}/",
    f"https://{EXPLORER}/ ",
    f"https://{EXPLORER}/\r\nX-Injected: 1",
    f"https://{EXPLORER}\n.evil.example/",
    f"https://{EXPLORER}\t.evil.example/",
    f"ht\ntps://{EXPLORER}/",
    f"https://{EXPLORER}/\x00",
    f"https://{EXPLORER}/\x7f",
    f'https://{EXPLORER}/"><script>alert(1)</script>',
    f"https://{EXPLORER}/<img>",
    f"https://{EXPLORER}/\u202e",
    f"https://{EXPLORER}/é",
    "https://expløorer.example.org/",
    "https://еxplorer.example.org/",  # the first letter is Cyrillic
    "https://explorer。example.org/",
    "https://explorer.example.org\u2044evil.example/",
    "https://ｅxplorer.example.org/",
    "https://\u212aiosk.example.org/",  # the sign for kelvin is a k in lower case
    "https://kio\u017fk.example.org/",  # a long s is an s in upper case
    "http\u017f://kiosk.example.org/",
    "https://xn--xplorer-xyz.example.org/",
    "https://run.example.org/",
    "http://run.example.org:8443/",
    "http://localhost/",
    "https://localhost:3000/",
    "http://localhost:3000.evil.example/",
    "http://localhost:3000@evil.example/",
    "http://127.0.0.1:3000/",
    "https://[::1]/",
    "http://[::1]:3001/",
    f"https://{EXPLORER}/".ljust(801, "x"),
    f"https://{EXPLORER}/" + "x" * 1_000_000,
]


@pytest.mark.parametrize("address", BAD_REDIRECTS, ids=lambda address: ascii(address)[:60])
def test_addresses_that_people_may_not_be_led_to(client: FlaskClient, smtp: MailServer, address: str) -> None:
    assert HOSTS.origin_of(address) is None
    response = register(client, JANE, address)
    if len(address) < 900_000:
        assert (response.status_code, response.json["error"]) == (400, "Invalid request")
        assert "redirect_to" in response.json["hint"]
    assert response.status_code >= 400
    assert smtp.mails == []


@pytest.mark.parametrize("value", [None, 1, True, [], {}, [f"https://{EXPLORER}/"], {"a": 1}])
def test_redirects_that_are_no_text(client: FlaskClient, smtp: MailServer, value: Any) -> None:
    response = client.post("/api/v1/user_register", json={"email_address": JANE, "redirect_to": value})
    assert (response.status_code, response.json["error"]) == (400, "Invalid request")
    assert smtp.mails == []


def test_nobody_can_log_in_where_no_interface_is_named(smtp: MailServer, tmp_path: Any, module_dsn: str) -> None:
    alone = app_with_mail(tmp_path, module_dsn, smtp, login_redirect_hosts=())
    response = register(alone.test_client())
    assert (response.status_code, response.json["error"]) == (400, "Invalid request")
    assert "login_redirect_hosts" in response.json["hint"]
    alone.extensions["api"].close()
