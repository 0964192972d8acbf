"""Ports on the loopback address: the one that was asked for, and free ones for everything else."""

import contextlib
import errno
import socket

from devstack.errors import StackError

HOST = "127.0.0.1"


def require_free(port: int) -> None:
    """Check that the API can listen on `port`.

    Raises:
        StackError: it is taken, or not for this user.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(f"Port {port} needs root. Take one above 1023: make run PORT=8081") from None
            another = port + 1 if port < 65535 else 8081
            raise StackError(
                f"Port {port} is taken by another program. Choose another one: make run PORT={another}"
            ) from None


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind((HOST, 0))
        return [item.getsockname()[1] for item in sockets]
