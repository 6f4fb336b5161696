"""How a server listens: the bounds of its connections, and how a process leaves a shared port."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from ddq.config import LIMITS, Settings
from ddq.server.admission import HARD_LIMIT_FACTOR

log = logging.getLogger(__name__)

HANDSHAKE_MAX_MS = 10_000
"""A connection that has not said by then that it speaks HTTP/2 is closed; gRPC's own are 120 s."""
KEEPALIVE_MS = 60_000
"""A connection that has been silent for so long is asked for a sign of life."""
KEEPALIVE_TIMEOUT_MS = 20_000
"""A connection that gives none for so long is closed, with its calls."""
CONNECTION_HARD_LIMIT_FACTOR = 4
"""A connection has at most so many times as many calls as may be under way, waiting ones included.
"""
OTHER_FILES_COUNT = 256
"""Open files beside the connections: the store's, the log, libraries."""

_OPEN_FILES = Path("/proc/self/fd")


def grpc_options(settings: Settings, *, shares_port: bool) -> list[tuple[str, int]]:
    """The options of a gRPC server.

    Args:
        shares_port: whether other processes of the same parent listen on the same port.
    """
    waiting_max_count = HARD_LIMIT_FACTOR * settings.calls_waiting_max_count
    options = [
        ("grpc.max_receive_message_length", LIMITS.request_max_bytes),
        # Replies carry at most retrieve_max_bytes of payloads, and their envelopes.
        ("grpc.max_send_message_length", 2 * LIMITS.request_max_bytes),
        # gRPC's own are 1,000 and 3,000; in between it refuses by chance.
        ("grpc.server.max_pending_requests", waiting_max_count),
        ("grpc.server.max_pending_requests_hard_limit", waiting_max_count),
        # The admission counts the calls that wait by it.
        ("grpc.enable_channelz", 1),
        # Beyond it gRPC's own clients end calls with UNAVAILABLE: the admission refuses before.
        (
            "grpc.max_concurrent_streams",
            CONNECTION_HARD_LIMIT_FACTOR * settings.connection_calls_max_count,
        ),
        ("grpc.max_allowed_incoming_connections", settings.connections_max_count),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MAX_MS),
        # Hosts that vanished without closing their connections would keep them, and their calls.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A second server on the same port would take half of the calls, unless that is the
        # purpose: then the parent of both keeps the port from all others.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ]
    if settings.connection_idle_ms:
        options.append(("grpc.max_connection_idle_ms", settings.connection_idle_ms))
    return options


def allow_connections(count: int) -> None:
    """Lets this process open as many files as its connections need, if the system permits it."""
    wanted = count + OTHER_FILES_COUNT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        log.warning(
            "this process may open %(files_max_count)d files (ulimit -Hn), and "
            "connections_max_count is %(connections_max_count)d: raise the one or lower the other "
            "to %(possible_count)d",
            {
                "files_max_count": possible,
                "connections_max_count": count,
                "possible_count": max(1, possible - OTHER_FILES_COUNT),
            },
        )


def stop_listening(port: int) -> None:
    """Closes this process's listening sockets of a port, so that others get all new connections.

    gRPC itself tells its clients to connect again before it closes them, so that some connect to
    the process that is about to stop, and are refused. Its own part of the socket stays, and ends
    with its server. Where the system does not list open files it does nothing.
    """

    def close(sock: socket.socket) -> None:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and sock.getsockname()[1] == port:
            sock.shutdown(socket.SHUT_RD)

    _for_each_socket(close)


def close_connection(peer: str) -> None:
    """Closes the connection of a client; gRPC ends its calls. A server of grpc.aio cannot do that.

    Where the system does not list open files it does nothing.

    Args:
        peer: the client's end as gRPC names it: ``ipv4:127.0.0.1:40000``.
    """
    kind, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if kind not in {"ipv4", "ipv6"}:
        return
    wanted = (host.strip("[]"), int(port))

    def close(sock: socket.socket) -> None:
        found = sock.getpeername()
        if (found[0].removeprefix("::ffff:"), found[1]) == wanted:
            sock.shutdown(socket.SHUT_RDWR)

    _for_each_socket(close)


def _for_each_socket(act: Callable[[socket.socket], None]) -> None:
    """Acts on the open internet sockets of this process; one for which that fails is skipped."""
    if not _OPEN_FILES.is_dir():
        return
    for path in _OPEN_FILES.iterdir():
        # Not a socket, not connected, or closed meanwhile.
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=int(path.name))
            try:
                if sock.family in {socket.AF_INET, socket.AF_INET6}:
                    act(sock)
            finally:
                # It is gRPC's.
                sock.detach()
