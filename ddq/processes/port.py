"""One port for several processes of one parent, and for no other program."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from ddq.config import StartupError, split_address

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@contextlib.contextmanager
def reserved_port(listen: str) -> Iterator[str]:
    """Keeps a port for the processes of this one until the block ends; gives HOST:PORT.

    Sockets of the same user that set SO_REUSEPORT may listen on it, which no program does by
    accident: a second ddq, with or without --processes, is refused.

    Args:
        listen: HOST:PORT; port 0 for any that is free.

    Raises:
        StartupError: the address cannot be used.
    """
    host, port = split_address(listen)
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise StartupError(f"cannot listen on {listen}: {error.strerror}") from None
        held = 0
        for family, kind, protocol, _, address in found:
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            try:
                _hold(sock, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno in _NOT_HERE and len(found) > 1:
                    continue
                raise StartupError(
                    f"cannot listen on {listen}: the address is in use or not this machine's; "
                    "choose another one"
                ) from None
            held += 1
            port = sock.getsockname()[1]
        if not held:
            raise StartupError(
                f"cannot listen on {listen}: the address is not this machine's; choose another one"
            )
        yield f"{host}:{port}"


def _hold(sock: socket.socket, address: tuple[object, ...]) -> None:
    """Binds without listening, and lets the processes of this one bind beside it."""
    # Only for the bind: connections of an earlier server that are not quite closed do not matter.
    # The kernel then finds every other program that holds the port, also one with SO_REUSEPORT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
