"""The HTTP port of a process: /metrics for Prometheus, /livez and /readyz for its supervisor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from ddq.config import StartupError, split_address
from ddq.health import Health, Readiness, Reporting
from ddq.metrics import Metrics

LIVE_TIMEOUT_S = 5.0
"""For how long the event loop may be busy with one thing until the process counts as hung."""
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@asynccontextmanager
async def served_metrics(
    listen: str | None, health: Health, metrics: Metrics | None = None
) -> AsyncIterator[tuple[Metrics, str | None]]:
    """Metrics and health that are served over HTTP until the block ends, and the address.

    Args:
        listen: HOST:PORT; None: nowhere.
        metrics: those of a process whose parent shows them; they are not served here.

    Raises:
        StartupError: one cannot listen there.
    """
    if metrics is not None or listen is None:
        yield metrics or Metrics(), None
        return
    made = Metrics().with_process()
    async with served_registry(listen, made.registry, health) as address:
        yield made, address


@asynccontextmanager
async def served_registry(
    listen: str, registry: CollectorRegistry, health: Reporting
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
    server.set_app(_application(make_wsgi_app(registry), health, asyncio.get_running_loop()))
    try:
        yield f"{host}:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


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
