"""Runs tasks in podman containers with pipelining, as ssh does on real hosts.

The collection's connection opens no standard input in the container, hence cannot pipeline: each task costs it five
podman calls. With `exec --interactive` the module goes in through the pipe and one call is enough.
"""

import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.containers.podman.plugins.connection.podman import Connection as PodmanConnection

DOCUMENTATION = """
name: podman_pipe
short_description: Run tasks in an existing podman container, pipelined
description: The connection of containers.podman with pipelining; used by the role tests.
options:
  remote_addr:
    description: Name of the container.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
  remote_user:
    description: User within the container.
    vars:
      - name: ansible_user
  podman_extra_args:
    description: Arguments for podman itself.
    default: ""
  podman_executable:
    description: The podman command.
    default: podman
"""


class Connection(PodmanConnection):  # type: ignore[misc] # the collection has no types
    """A podman connection whose exec reads standard input."""

    transport = "podman_pipe"
    has_pipelining = True

    def _connect(self) -> None:
        # No mount of the container's filesystem: files go through the pipe as well.
        self._connected = True

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a local file into the container."""
        script = f"cat > {shlex.quote(out_path)}"
        code, _, error = self._podman(["exec"], ["sh", "-c", script], Path(in_path).read_bytes())
        if code != 0:
            raise AnsibleError(f"Writing {out_path} in {self._container_id} failed: {error.decode()}")

    def _podman(
        self, cmd: str | list[str], cmd_args: list[str] | None = None, in_data: bytes | None = None, **more: Any
    ) -> tuple[int, bytes, bytes]:
        if isinstance(cmd, list) and cmd[0] == "exec" and in_data is not None:
            cmd = [cmd[0], "--interactive", *cmd[1:]]
        result: tuple[int, bytes, bytes] = super()._podman(cmd, cmd_args, in_data, **more)
        return result
