"""Checks of the settings about the login: which mail server, which web interfaces."""

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.account_ids import normal_address
from api.login_redirects import RedirectHosts
from api.mail import NO_TLS
from core.config import ConfigError

if TYPE_CHECKING:
    from api.config import ApiSettings

_MAIL_SERVER = re.compile(r"[0-9A-Za-z._-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)


def check_login(settings: "ApiSettings") -> None:
    """Raise ConfigError when a setting about the login is wrong."""
    try:
        RedirectHosts(settings.login_redirect_hosts)
    except ValueError as error:
        raise ConfigError(f"login_redirect_hosts: {error}.") from error
    if settings.mail_transport == "log":
        _check_log(settings)
    elif settings.mail_server:
        _check_smtp(settings)


def _check_log(settings: "ApiSettings") -> None:
    if settings.mail_server:
        raise ConfigError('mail_server is set, and mail_transport is "log". Take one of the two out.')
    base = urlsplit(settings.base_url)
    if base.scheme != "http" or not _is_here(base.hostname) or not _is_here(settings.bind.rpartition(":")[0]):
        raise ConfigError(
            'mail_transport is "log", which writes links that log people in into the log. That is for a stack on your '
            "own machine, where bind and base_url are 127.0.0.1: set mail_server instead."
        )


def _check_smtp(settings: "ApiSettings") -> None:
    if not _MAIL_SERVER.fullmatch(settings.mail_server):
        raise ConfigError("mail_server is no name of a host and no address; for example mail.example.org.")
    if not 0 < settings.mail_port < 65536:
        raise ConfigError(f"mail_port is {settings.mail_port}; give a port, such as 587.")
    if normal_address(settings.mail_source_address) != settings.mail_source_address.lower():
        raise ConfigError("mail_source_address is no e-mail address; for example login@example.org.")
    if bool(settings.mail_username) != bool(settings.mail_password_file):
        raise ConfigError("mail_username and mail_password_file belong together. Set both or none.")
    if settings.mail_username and settings.mail_security == NO_TLS:
        raise ConfigError(
            'mail_security is "none", so that the password of mail_username could be read on the way. '
            'Set it to "starttls" or "tls".'
        )


def _is_here(host: str | None) -> bool:
    """Return whether a host is this machine, by its loopback."""
    text = (host or "").strip("[]")
    try:
        return text == "localhost" or ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
