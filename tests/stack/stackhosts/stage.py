"""The staging inventory on hosts of our own: what belongs together in one run of the stack test."""

import hashlib
import os
import shutil
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stackhosts import DOMAIN, LOGS, ROOT
from stackhosts.operator import Operator
from stackhosts.podman import Cluster, Host

LABEL = "stack"
HOME = Path(os.environ.get("STACK_HOME", "/tmp/stack"))
KEEP = os.environ.get("KEEP", "") not in ("", "0")
"""Leave hosts, keys and inventory for the next run, which then goes on with them."""

FIRST = ("db1", "api1", "monitoring")
"""The hosts of the staging inventory."""

NEW = "api2"
"""The host that is added by following the guide; before that it stands in for groups that staging leaves empty."""

REHEARSED_ALONE = ("balancer", "clickhouse", "test_helper")


@dataclass
class Stage:
    """Hosts, and the operator who deploys them."""

    cluster: Cluster = field(default_factory=lambda: Cluster(LABEL))
    operator: Operator = field(default_factory=lambda: Operator(HOME))
    went_on: bool = False
    summary: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> dict[str, Host]:
        """Running hosts by short name."""
        return self.cluster.hosts

    def up(self) -> None:
        """Start hosts, or take those that an earlier run kept; make key, inventory and vault."""
        self.went_on = KEEP and HOME.exists() and self.cluster.is_there((*FIRST, NEW))
        if not self.went_on:
            self.down()
            shutil.rmtree(LOGS, ignore_errors=True)
        self.operator.prepare()
        self.cluster.create_network()
        for name in (*FIRST, NEW):
            host = self.cluster.start(name, self.operator.public_key)
            self.operator.add_a_record(host)
            if not self.went_on and name != NEW:
                self._introduce(host)
        if not self.went_on:
            self._trust_self_signed()
            self.operator.make_vault()
            self.operator.commit("Inventory of this run")

    def _introduce(self, host: Host) -> None:
        self.operator.write_vars(f"host_vars/{host.fqdn}/vars.yml", {"firewall_address": host.address})
        self.operator.run(f"ssh-keyscan -t ed25519 {host.fqdn} >> inventory/known_hosts", title="keyscan")

    def _trust_self_signed(self) -> None:
        """Nothing here has a public name."""
        path = "group_vars/all/vars.yml"
        values = yaml.safe_load((self.operator.inventory / path).read_text())
        self.operator.write_vars(path, values | {"tls_method": "self-signed"})

    def down(self) -> None:
        """Remove everything but caches."""
        self.operator.close_connections()
        self.cluster.remove()
        shutil.rmtree(HOME, ignore_errors=True)

    def groups(self, name: str) -> list[str]:
        """Return the groups of a host."""
        children = self._hosts_file()["all"]["children"]
        fqdn = f"{name}.{DOMAIN}"
        return ["all", *(group for group, entry in children.items() if fqdn in ((entry or {}).get("hosts") or {}))]

    def join(self, name: str, *groups: str) -> None:
        """Add a host to groups."""
        inventory = self._hosts_file()
        for group in groups:
            entry = inventory["all"]["children"][group]
            entry["hosts"] = (entry.get("hosts") or {}) | {f"{name}.{DOMAIN}": None}
        self.operator.write_vars("hosts.yml", inventory)

    def leave(self, name: str, *groups: str) -> None:
        """Take a host out of groups, and what is told of it."""
        inventory = self._hosts_file()
        for group in groups:
            inventory["all"]["children"][group]["hosts"].pop(f"{name}.{DOMAIN}")
        self.operator.write_vars("hosts.yml", inventory)
        shutil.rmtree(self.operator.inventory / "host_vars" / f"{name}.{DOMAIN}")

    def stand_in(self) -> None:
        """Put the fourth host into the groups that staging leaves empty, for rehearsals."""
        host = self.hosts[NEW]
        self._introduce(host)
        helper = ROOT / "play"
        self.operator.write_vars(
            f"host_vars/{host.fqdn}/vars.yml",
            {
                "firewall_address": host.address,
                "clickhouse_passwords": {"api": "only-for-rehearsals-1", "fastpath": "only-for-rehearsals-2"},
                "test_helper_source": str(helper),
                "test_helper_sha256": hashlib.sha256(helper.read_bytes()).hexdigest(),
                "test_helper_names": [host.fqdn],
            },
        )
        self.join(NEW, *REHEARSED_ALONE)

    def stand_down(self) -> None:
        """Undo `stand_in`."""
        self.leave(NEW, *REHEARSED_ALONE)
        known = self.operator.checkout / "inventory" / "known_hosts"
        kept = [line for line in known.read_text().splitlines() if not line.startswith(f"{NEW}.")]
        known.write_text("\n".join(kept) + "\n")

    def certificates(self) -> Path:
        """Return a file with the certificates of all API hosts, to be believed by clients."""
        bundle = self.operator.home / "certificates.pem"
        texts = [
            host.run(f"cat /etc/ssl/services/{host.fqdn}/fullchain.pem")
            for name, host in self.hosts.items()
            if "api" in self.groups(name)
        ]
        bundle.write_text("".join(texts))
        return bundle

    def prometheus(self, path: str) -> Any:
        """Ask Prometheus' API and return its data."""
        reply = self.hosts["monitoring"].curl_json(f"http://127.0.0.1:9090/api/v1/{path}")
        assert isinstance(reply, dict)
        assert reply["status"] == "success"
        return reply["data"]

    def query(self, expression: str) -> list[Any]:
        """Ask Prometheus for the present value of an expression."""
        result: list[Any] = self.prometheus(f"query?query={urllib.parse.quote(expression)}")["result"]
        return result

    def targets_down(self) -> list[str]:
        """Describe the targets that are not up."""
        targets = self.prometheus("targets?state=active")["activeTargets"]
        assert targets
        return [
            f"{target['labels']['job']} {target['labels']['instance']}: {target['health']} {target['lastError']}"
            for target in targets
            if target["health"] != "up"
        ]

    def _hosts_file(self) -> dict[str, Any]:
        values: dict[str, Any] = yaml.safe_load((self.operator.inventory / "hosts.yml").read_text())
        return values
