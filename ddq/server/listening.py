"""How one of several processes on a port leaves it before it stops."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


def stop_listening(port: int) -> None:
    """Closes this process's listening sockets of a port, so that others get all new connections.

    gRPC itself tells its clients to connect again before it closes them, so that some connect to
    the process that is about to stop, and are refused. Its own part of the socket stays, and ends
    with its server. Where the system does not list open files it does nothing.
    """
    if not _OPEN_FILES.is_dir():
        return
    for path in _OPEN_FILES.iterdir():
        # Not a socket, or closed meanwhile.
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=int(path.name))
            try:
                listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and sock.getsockname()[1] == port:
                    sock.shutdown(socket.SHUT_RD)
            finally:
                # It is gRPC's.
                sock.detach()
