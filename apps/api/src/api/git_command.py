"""The git program, run so that nothing but its arguments matters: no configuration, no hooks, no questions, an end.

    git = Git(Path("/var/lib/ooni-api/test-lists.git"))
    git.run("rev-parse", "HEAD", timeout_s=5)

Secrets go through the environment, never through arguments, which everybody on the host can read.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

_GIT = "git"
_MOST_TOLD = 300  # characters of an error

# Of other repositories only these are spoken to; `ext::` would run commands.
PROTOCOLS = "file:https:ssh"

CONFIGURATION = {
    "core.hooksPath": "/dev/null",
    "core.askPass": "",
    "credential.helper": "",
    "gc.autoDetach": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "20",
    "submodule.recurse": "false",
}
"""Settings of git, by name, for every command."""

_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"


class GitError(Exception):
    """A command failed, or took too long; the text is what git said, shortened."""


class Git:
    """Commands on one repository, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        """Take the directory of a bare repository."""
        self.directory = directory

    def run(
        self,
        *arguments: str,
        timeout_s: float,
        stdin: bytes = b"",
        configuration: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return what a command writes.

        Args:
            arguments: of git; text from outside must come after `--` or a word of its own that cannot begin with `-`.
            timeout_s: after this time, in seconds, the command and all that it started are killed.
            stdin: what it reads.
            configuration: more settings of git, by name.
            environment: more variables.

        Raises:
            GitError: it failed, took too long, or there is no git.
        """
        settings = {**CONFIGURATION, **(configuration or {})}
        variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_DIR": str(self.directory),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": PROTOCOLS,
            "GIT_SSH_COMMAND": _SSH,
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
            **(environment or {}),
        }
        try:
            process = subprocess.Popen(  # noqa: S603 a fixed program; see `arguments`
                [_GIT, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                cwd="/",
                start_new_session=True,  # its helpers end with it
            )
        except OSError as error:
            raise GitError(f"git cannot be started ({error.strerror}). Install the package git.") from error
        with process:
            try:
                output, said = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise GitError(f"git {arguments[0]} took longer than {timeout_s:g} seconds") from None
            except BaseException:
                _kill(process)
                raise
        if process.returncode:
            text = " ".join(said.decode("utf-8", "replace").split())
            raise GitError(f"git {arguments[0]} failed: {text[-_MOST_TOLD:] or process.returncode}")
        return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and everything in its session, and take in what they wrote, so that no pipe stays open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.communicate()
