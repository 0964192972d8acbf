"""Systemd hosts as a provider hands them out: Debian, a root key, an address, a name; nothing of ours."""

import ipaddress
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stackhosts import DOMAIN, ROOT

IMAGE = os.environ.get("MOLECULE_IMAGE", "localhost/local/debian12:systemd")
# NET_RAW: Prometheus' prober pings. SYS_PTRACE: ss tells root who listens, as on a real host. Why the others:
# tests/images/README.md.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE")
FIRST_ADDRESS = 10


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message holds what it printed."""


def podman_environ() -> dict[str, str]:
    """Return the environment in which podman works on this machine."""
    shown = subprocess.run(
        ["bash", "-c", ". tests/images/podman-env.sh && env -0"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return dict(entry.split("=", 1) for entry in shown.split("\0") if "=" in entry)


def eventually(condition: Callable[[], object], seconds: float, what: str, *, pause: float = 1) -> None:
    """Wait until `condition`, asked every `pause` seconds, returns something true; an error in it counts as false.

    Raises:
        AssertionError: it did not happen; with the last error, if that was the reason.
    """
    deadline = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            if condition():
                return
        except (AssertionError, OSError, ValueError, KeyError) as problem:
            error = problem
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s") from error
        time.sleep(pause)


@dataclass(frozen=True)
class Host:
    """One host. `name` is its short name, `address` the one in its A record."""

    name: str
    container: str
    address: str
    environ: dict[str, str]

    @property
    def fqdn(self) -> str:
        """The name in the inventory and in DNS."""
        return f"{self.name}.{DOMAIN}"

    def run(self, command: str, *, check: bool = True, timeout: float = 300, stdin: bytes | None = None) -> str:
        """Run a shell command as root, past ssh, and return what it prints.

        Raises:
            CommandFailed: when `check` and its status is not 0.
        """
        done = subprocess.run(
            ["podman", "exec", "-i", self.container, "sh", "-c", command],
            env=self.environ,
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        shown = done.stdout.decode(errors="replace")
        if check and done.returncode != 0:
            raise CommandFailed(
                f"{self.name}: {command}\nstatus {done.returncode}\n{shown[-4000:]}{done.stderr.decode()[-4000:]}"
            )
        return shown

    def sql(self, statement: str, database: str = "ooni") -> str:
        """Run an SQL statement as the superuser and return rows as lines, fields separated by |."""
        return self.run(
            f"cd / && runuser -u postgres -- psql -v ON_ERROR_STOP=1 -d {database} -Atq", stdin=statement.encode()
        ).strip()

    def curl_json(self, url: str) -> object:
        """Ask an address from the host itself and return the JSON answer."""
        return json.loads(self.run(f"curl -sSf --max-time 20 {shlex.quote(url)}"))

    def is_active(self, unit: str) -> bool:
        """Return whether a unit is active."""
        return self.run(f"systemctl is-active {unit}", check=False).strip() == "active"

    def failed_units(self) -> list[str]:
        """Names of units in state failed."""
        lines = self.run("systemctl list-units --state=failed --plain --no-legend").splitlines()
        return [line.split()[0] for line in lines if line.strip()]

    def wait_until_booted(self, seconds: float = 90) -> None:
        """Wait until systemd has nothing left to start."""
        eventually(
            lambda: self.run("systemctl is-system-running", check=False).strip() in ("running", "degraded"),
            seconds,
            f"{self.name} boots",
        )

    def reboot(self) -> None:
        """Stop it as init does, start it again and wait for it."""
        subprocess.run(
            ["podman", "restart", "--time", "60", self.container], env=self.environ, check=True, capture_output=True
        )
        self.wait_until_booted()


class Cluster:
    """A network of hosts that find each other by name."""

    def __init__(self, label: str) -> None:
        """Use `label` in all names, so that clusters can be told apart and cleaned up."""
        self.label = label
        self.environ = podman_environ()
        self.hosts: dict[str, Host] = {}

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman and return what it prints."""
        done = subprocess.run(["podman", *arguments], env=self.environ, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise CommandFailed(f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def is_there(self, names: Iterable[str]) -> bool:
        """Return whether an earlier run left all these hosts running."""
        running = self.podman("ps", "--format", "{{.Names}}").split()
        return all(f"{self.label}-{name}" in running for name in names)

    def create_network(self) -> None:
        """Make the network, unless an earlier run left it."""
        if self.label not in self.podman("network", "ls", "--format", "{{.Name}}").split():
            self.podman("network", "create", self.label)

    def start(self, name: str, root_key: Path) -> Host:
        """Start a host, or take the one that an earlier run kept, and let a key in as root."""
        container = f"{self.label}-{name}"
        host = Host(name, container, self._address(len(self.hosts)), self.environ)
        if not self.podman("ps", "--all", "--quiet", "--filter", f"name=^{container}$").strip():
            capabilities = [f"--cap-add={capability}" for capability in CAPABILITIES]
            self.podman(
                *("run", "--detach", "--name", container, "--hostname", name, "--label", f"owner={self.label}"),
                *("--systemd=always", *capabilities, "--volume", f"{container}-apt:/var/cache/apt/archives"),
                *("--network", self.label, "--ip", host.address, "--network-alias", host.fqdn, IMAGE, "/sbin/init"),
            )
        host.wait_until_booted()
        host.run(
            "mkdir -p -m 700 /root/.ssh && cat >> /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys",
            stdin=root_key.read_bytes(),
        )
        self.hosts[name] = host
        return host

    def _address(self, number: int) -> str:
        (network,) = json.loads(self.podman("network", "inspect", self.label))
        subnet = ipaddress.ip_network(network["subnets"][0]["subnet"])
        return str(subnet[FIRST_ADDRESS + number])

    def remove(self) -> None:
        """Remove hosts and network. The volumes with downloaded packages stay: they are a cache."""
        containers = self.podman("ps", "--all", "--quiet", "--filter", f"label=owner={self.label}").split()
        if containers:
            self.podman("rm", "--force", "--time", "0", *containers)
        self.podman("network", "rm", "--force", self.label, check=False)
        self.hosts.clear()
