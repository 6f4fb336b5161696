"""The HTTP port of a process: /metrics for Prometheus, /livez and /readyz for its supervisor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from ddq.config import StartupError, split_address
from ddq.health import Health, Readiness, Reporting
from ddq.metrics import Metrics

log = logging.getLogger(__name__)

LIVE_TIMEOUT_S = 5.0
"""For how long the event loop may be busy with one thing until the process counts as hung."""
HANDSHAKE_TIMEOUT_S = 10.0
"""For how long a client may take to begin with TLS."""
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: the status of HTTP, such as ``401 Unauthorized``, and the text."""

    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Protection:
    """What protects the metrics.

    Attributes:
        context: makes the context for each TLS connection, and raises OSError where that is not
            possible; None: plain HTTP.
        refusal: decides about the header ``Authorization`` of a request for metrics; None: all
            are answered. The health needs no token.
    """

    context: Callable[[], ssl.SSLContext] | None = None
    refusal: Callable[[str | None], Refusal | None] | None = None


PLAIN = Protection()


@asynccontextmanager
async def served_metrics(
    listen: str | None,
    health: Health,
    metrics: Metrics | None = None,
    protection: Protection | None = None,
) -> AsyncIterator[tuple[Metrics, str | None]]:
    """Metrics and health that are served over HTTP until the block ends, and the address.

    Args:
        listen: HOST:PORT; None: nowhere.
        metrics: those of a process whose parent shows them; they are not served here.
        protection: None: plain HTTP for everyone.

    Raises:
        StartupError: one cannot listen there.
    """
    if metrics is not None or listen is None:
        yield metrics or Metrics(), None
        return
    made = Metrics().with_process()
    async with served_registry(listen, made.registry, health, protection) as address:
        yield made, address


@asynccontextmanager
async def served_registry(
    listen: str,
    registry: CollectorRegistry,
    health: Reporting,
    protection: Protection | None = None,
) -> AsyncIterator[str]:
    """Serves a registry and the health over HTTP until the block ends; gives the address.

    Raises:
        StartupError: one cannot listen there.
    """
    host, port = split_address(listen)
    try:
        server, thread = start_http_server(port, host.strip("[]"), registry)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {listen} for metrics: {error.strerror or error}; choose another "
            "address"
        ) from None
    protection = protection or PLAIN
    metrics = _guarded(make_wsgi_app(registry), protection.refusal)
    server.set_app(_application(metrics, health, asyncio.get_running_loop()))
    if protection.context is not None:
        _encrypt(server, protection.context)
    try:
        yield f"{host}:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


def _guarded(
    metrics: Application, refusal: Callable[[str | None], Refusal | None] | None
) -> Application:
    """The metrics, for requests that are not refused."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        assert refusal is not None
        refused = refusal(environ.get("HTTP_AUTHORIZATION"))
        if refused is None:
            return metrics(environ, start_response)
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if refused.status.startswith("401"):
            headers.append(("WWW-Authenticate", "Bearer"))
        start_response(refused.status, headers)
        return [f"{refused.message}\n".encode()]

    return metrics if refusal is None else application


def _encrypt(server: Any, context: Callable[[], ssl.SSLContext]) -> None:
    """Has a server speak TLS, with a handshake in the thread of the request.

    In the thread that accepts, a client that sends nothing would keep all others waiting.
    """
    finish, known = server.finish_request, context()

    def finish_request(connection: socket.socket, address: Any) -> None:
        nonlocal known
        # While the files are being replaced they may not fit together.
        with contextlib.suppress(OSError):
            known = context()
        connection.settimeout(HANDSHAKE_TIMEOUT_S)
        try:
            encrypted = known.wrap_socket(connection, server_side=True)
        except OSError as error:
            log.debug(
                "no TLS with %(address)s on the metrics port: %(error)s",
                {"address": address, "error": error},
            )
            return
        # A client that goes away meanwhile is not an error.
        with encrypted, contextlib.suppress(OSError):
            finish(encrypted, address)

    server.finish_request = finish_request


def _application(
    metrics: Application, health: Reporting, loop: asyncio.AbstractEventLoop
) -> Application:
    """Chooses by the path; each request runs in a thread of its own."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/livez":
            return _answer("live", _liveness(loop), start_response)
        if environ["PATH_INFO"] == "/readyz":
            return _answer("ready", health.readiness(), start_response)
        return metrics(environ, start_response)

    return application


def _liveness(loop: asyncio.AbstractEventLoop) -> Readiness:
    """Whether the event loop runs. Nothing else: a restart does not mend the store."""
    ran: concurrent.futures.Future[None] = concurrent.futures.Future()
    try:
        loop.call_soon_threadsafe(ran.set_result, None)
        ran.result(LIVE_TIMEOUT_S)
    except TimeoutError:
        reason = f"it has not run for {LIVE_TIMEOUT_S:g} s"
        return Readiness(ready=False, reasons={"event loop": reason})
    except RuntimeError:
        return Readiness(ready=False, reasons={"event loop": "it has ended"})
    return Readiness(ready=True)


def _answer(name: str, readiness: Readiness, start_response: Callable[..., Any]) -> Iterable[bytes]:
    document = {
        name: readiness.ready,
        "reasons": [{"part": part, "reason": reason} for part, reason in readiness.reasons.items()],
    }
    status = "200 OK" if readiness.ready else "503 Service Unavailable"
    start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(document).encode() + b"\n"]
