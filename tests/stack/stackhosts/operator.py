"""The operator's side: a checkout with its inventory, a key, a vault password, and ./play from there over real ssh."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from stackhosts import LOGS, ROOT
from stackhosts.podman import CommandFailed, Host
from stackhosts.recap import Recap, read_recap

STAGE = "staging"
# Names resolve as the A records say, for this operator alone: a private /etc/hosts in a mount namespace.
WITH_NAMES = 'mount --bind "$STACK_HOSTS_FILE" /etc/hosts && exec "$@"'


@dataclass
class Operator:
    """Somebody with a checkout who deploys hosts. `home` is a short path: ssh's sockets are below it."""

    home: Path
    log_number: int = 0
    durations: dict[str, float] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        """The copy of this repository that is played from."""
        return self.home / "checkout"

    @property
    def inventory(self) -> Path:
        """The inventory that is deployed: a copy of staging."""
        return self.checkout / "inventory" / STAGE

    @property
    def key(self) -> Path:
        """The private ssh key."""
        return self.home / "id_ed25519"

    @property
    def public_key(self) -> Path:
        """The public ssh key."""
        return self.home / "id_ed25519.pub"

    @property
    def environ(self) -> dict[str, str]:
        """Environment of the operator's commands."""
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return inherited | {
            "HOME": str(self.home),
            "STACK_HOSTS_FILE": str(self.home / "hosts"),
            "PLAY_INVENTORY": STAGE,
            "PLAY_OPERATOR": "stack",
            "OONI_VAULT_PASSWORD_FILE": str(self.home / "vault-password"),
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.key),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{
                f"GIT_{who}_{what}": "stack@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }

    def prepare(self) -> None:
        """Make checkout, key and an empty list of names."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.copy_tree()
        if not self.key.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stack", "-f", str(self.key)], check=True
            )
        (self.home / "hosts").write_text(Path("/etc/hosts").read_text())

    def copy_tree(self) -> None:
        """Copy what git has or would take, over what is there; the inventory only once, since the test changes it."""
        kept = self.inventory.exists()
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        if self.checkout.exists():
            for part in self.checkout.iterdir():
                if part.is_dir() and not part.is_symlink() and part.name != "inventory":
                    shutil.rmtree(part)
        for name in filter(None, names):
            if (ROOT / name).is_file() and not (kept and name.startswith("inventory/")):
                target = self.checkout / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        (self.checkout / ".venv").unlink(missing_ok=True)
        (self.checkout / ".venv").symlink_to(ROOT / ".venv")

    def add_a_record(self, host: Host) -> None:
        """Let the operator's machine resolve a host's name."""
        with (self.home / "hosts").open("a") as names:
            names.write(f"{host.address} {host.fqdn}\n")

    def write_vars(self, path: str, values: object) -> None:
        """Write a variables file of the inventory."""
        target = self.inventory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("---\n" + yaml.safe_dump(values, sort_keys=False))

    def make_vault(self) -> None:
        """Write vault files with random values for every secret that the inventory maps."""
        subprocess.run(
            [ROOT / "tools" / "make-test-vault", self.inventory], env=self.environ, check=True, capture_output=True
        )

    def commit(self, message: str) -> None:
        """Commit what the inventory says now, as an operator has to before production lets him play."""
        self.run(f"git init -q . && git add --all . && git commit -q --allow-empty -m '{message}'", title="commit")

    def run(self, command: str, *, title: str = "", timeout: float = 1500) -> str:
        """Run a shell command in the checkout and return what it prints; it is also kept in a file.

        Raises:
            CommandFailed: when its status is not 0.
        """
        self.log_number += 1
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{self.log_number:02}-{re.sub('[^A-Za-z0-9.-]+', '_', title or command)[:60]}.log"
        with log.open("w") as out:
            out.write(f"$ {command}\n")
            out.flush()
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-c", WITH_NAMES, "sh", "bash", "-euo", "pipefail", "-c", command],
                cwd=self.checkout,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        output = log.read_text(errors="replace")
        if done.returncode != 0:
            shown = output.split("\nTASKS RECAP")[0]
            raise CommandFailed(f"status {done.returncode}, see {log}\n" + shown[-4000:])
        return output

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command in the checkout, in a session of its own, for `kill`."""
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", WITH_NAMES, "sh", "bash", "-c", command],
            cwd=self.checkout,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Have a command that `start` started die without a chance to tidy up, with all that it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def play(self, arguments: str) -> Recap:
        """Run ./play with these arguments, note how long it took, and return what it says at the end."""
        started = time.monotonic()
        output = self.run(f"./play {arguments}", title=arguments)
        self.durations[arguments] = time.monotonic() - started
        return read_recap(output)

    def replay_command(self, url: str, ca: Path, options: str) -> list[str]:
        """Return the command of simulated probes that believe only these certificates, and resolve our names."""
        return self._with_names(f"exec {ROOT}/.venv/bin/probesim replay --url {url} --ca {ca} --json {options}")

    def acceptance_command(self, url: str, ca: Path, tests: str, **more: str) -> list[str]:
        """Return the command of acceptance tests (a file of tests/acceptance) against an instance, with our names."""
        variables = {"ACCEPTANCE_URL": url, "ACCEPTANCE_CA": str(ca), **more}
        environ = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        pytest = f".venv/bin/pytest -q -p no:cacheprovider tests/acceptance/{tests}"
        return self._with_names(f"cd {ROOT} && {environ} exec {pytest}")

    def ssh_command(self, host: Host) -> str:
        """Return the beginning of a command that runs another one on a host, as root."""
        options = f"-o BatchMode=yes -o UserKnownHostsFile={self.checkout}/inventory/known_hosts"
        return f"ssh -i {self.key} {options} root@{host.fqdn}"

    @staticmethod
    def _with_names(script: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", WITH_NAMES, "sh", "bash", "-c", script]

    def close_connections(self) -> None:
        """End the ssh connections that are kept for two minutes after a run."""
        for socket in (self.home / ".ansible" / "cp").glob("*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"], capture_output=True, check=False
            )
