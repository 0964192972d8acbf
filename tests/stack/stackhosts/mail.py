"""A mail server of a provider, for the time of one step: it takes mails over STARTTLS and keeps them."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stackhosts.podman import Host, eventually

MAILDIR = "/var/lib/stack-mail"
PORT = 2525
UNIT = "stack-mail"
TRUSTED = "/usr/local/share/ca-certificates/stack-mail.crt"


@dataclass(frozen=True)
class MailServer:
    """What the inventory says to use it: `settings`; where mails are: `MAILDIR` on `host`."""

    host: Host

    @property
    def settings(self) -> dict[str, object]:
        """Variables of the role ooni_api."""
        return {
            "ooni_api_mail_server": self.host.fqdn,
            "ooni_api_mail_port": PORT,
            "ooni_api_mail_source_address": "login@example.org",
            "ooni_api_login_redirect_hosts": ["explorer.example.org"],
        }


@contextmanager
def mail_server(host: Host) -> Iterator[MailServer]:
    """Run one beside a host of the API; it stands for that of a provider, whose certificate this host believes."""
    certificate = f"/etc/ssl/services/{host.fqdn}"
    host.run(f"cp {certificate}/fullchain.pem {TRUSTED} && update-ca-certificates")
    host.run("apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-aiosmtpd", timeout=600)
    served = f"-n -l {host.fqdn}:{PORT} --tlscert {certificate}/fullchain.pem --tlskey {certificate}/privkey.pem"
    kept = f"-c aiosmtpd.handlers.Mailbox {MAILDIR}"
    host.run(f"systemd-run --unit {UNIT} /usr/bin/python3 -m aiosmtpd {served} {kept}")
    try:
        greeting = f"timeout 5 bash -c {shlex.quote(f'exec 3<>/dev/tcp/{host.fqdn}/{PORT}; head -c 3 <&3')}"
        eventually(lambda: host.run(greeting) == "220", 30, "the mail server answers")
        yield MailServer(host)
    finally:
        host.run(f"systemctl stop {UNIT}; rm -f {TRUSTED}; update-ca-certificates --fresh", check=False)
