"""The composition root: a store, the services, a scheduler if asked for, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from ddq import tracing
from ddq.access import CertificateFiles, Guard, check_exposure, metrics_protection
from ddq.config import MS_PER_SECOND, Settings, StartupError, split_address
from ddq.health import Health
from ddq.metrics import Metrics
from ddq.monitoring import served_metrics
from ddq.scheduler import Scheduler
from ddq.server.admin import AdminService
from ddq.server.admission import Admission, known_waiting_calls
from ddq.server.draining import drain, uninterrupted
from ddq.server.health import watch_health
from ddq.server.listening import (
    allow_connections,
    close_connection,
    grpc_options,
    stop_listening,
)
from ddq.server.methods import Registrar
from ddq.server.notifier import ReadyNotifier
from ddq.server.open_calls import OpenCalls
from ddq.server.rpc import CallFactory, RunningCalls, servicer
from ddq.server.service import QueueService
from ddq.server.throttled_log import quiet_grpc
from ddq.store.lifecycle import check_options, working_store
from ddq.store.open import Store
from ddq.store.topology import StoreUrl
from ddq.v1 import (
    delay_queue_admin_service_pb2_grpc,
    delay_queue_service_pb2_grpc,
)

log = logging.getLogger(__name__)

QUEUE = "ddq.v1.DelayQueueService"
ADMIN = "ddq.v1.DelayQueueAdminService"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of a server process.

    Attributes:
        listen: HOST:PORT; port 0 for any that is free.
        store_url: see ddq.store.topology.FORMS.
        scheduler: whether it also promotes and reaps; None: if the store is embedded, since then
            no other process can.
        metrics_listen: HOST:PORT for Prometheus; None: nowhere.
        shares_port: whether other processes of the same parent listen on the same port.
        metrics: those that the parent shows in place of metrics_listen.
        health: where the server reports whether it is ready.
    """

    listen: str
    store_url: str
    scheduler: bool | None = None
    settings: Settings = field(default_factory=Settings)
    metrics_listen: str | None = None
    shares_port: bool = False
    metrics: Metrics | None = None
    health: Health = field(default_factory=Health, compare=False)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server that is ready.

    Attributes:
        address: where it listens.
        store: without the password.
        metrics: where its metrics are; None: nowhere.
    """

    address: str
    store: str
    metrics: str | None = None


async def run_server(
    options: ServerOptions, *, stop: asyncio.Event, on_ready: Callable[[ServerInfo], None]
) -> None:
    """Serves until ``stop`` is set, then lets calls that run finish.

    Raises:
        StartupError: the options cannot be used, or the store is not there.
        DdqError: the embedded store could not be started, or ended.
    """
    url = check_options(options.settings, options.store_url)
    check_exposure(options.settings, listen=options.listen, metrics_listen=options.metrics_listen)
    certificates = CertificateFiles.of(options.settings)
    guard = Guard.of(options.settings)
    async with tracing.exported("ddq-server", wanted=options.settings.traces):
        await _run(options, url, certificates, guard, stop, on_ready)


async def _run(
    options: ServerOptions,
    url: StoreUrl,
    certificates: CertificateFiles | None,
    guard: Guard | None,
    stop: asyncio.Event,
    on_ready: Callable[[ServerInfo], None],
) -> None:
    async with (
        metrics_protection(options.settings, options.metrics_listen) as protection,
        served_metrics(options.metrics_listen, options.health, options.metrics, protection) as (
            metrics,
            metrics_address,
        ),
        working_store(url, options.settings, metrics, stop) as store,
    ):

        def ready(address: str) -> None:
            on_ready(ServerInfo(address, str(url), metrics_address))

        schedules = url.kind == "embedded" if options.scheduler is None else options.scheduler
        scheduler = Scheduler(store) if schedules else None
        with quiet_grpc():
            await _serve(options, store, scheduler, certificates, guard, stop, ready)


async def _serve(
    options: ServerOptions,
    store: Store,
    scheduler: Scheduler | None,
    certificates: CertificateFiles | None,
    guard: Guard | None,
    stop: asyncio.Event,
    on_ready: Callable[[str], None],
) -> None:
    service = QueueService(store, ReadyNotifier(store.hints))
    running, calls, streams = RunningCalls(), OpenCalls(), OpenCalls()
    server, health_servicer, admission = _make_server(
        store, service, running, calls, streams, guard, shares_port=options.shares_port
    )
    host, _ = split_address(options.listen)
    try:
        if certificates is None:
            port = server.add_insecure_port(options.listen)
        else:
            port = server.add_secure_port(options.listen, certificates.server_credentials())
    except RuntimeError:
        raise StartupError(
            f"cannot listen on {options.listen}: the address is in use or not this machine's; "
            "choose another one"
        ) from None
    scheduler_stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            hints = group.create_task(store.hints.run(), name="ddq hints")
            checks = group.create_task(
                watch_health(store, options.health, health_servicer, (QUEUE, ADMIN)),
                name="ddq health",
            )
            background = [
                group.create_task(admission.end_stalled(), name="ddq stalled calls"),
            ]
            if guard is not None:
                background.append(group.create_task(guard.follow(), name="ddq access file"))
            if scheduler is not None:
                group.create_task(scheduler.run(scheduler_stop), name="ddq scheduler")
            await server.start()
            options.health.started()
            on_ready(f"{host}:{port}")
            await stop.wait()
            options.health.stopping()
            # The shards are handed over first, and not after the drain: a supervisor that stops
            # this process may not wait for its end.
            scheduler_stop.set()
            await health_servicer.enter_graceful_shutdown()
            service.end_waits()
            drain_s = options.settings.drain_ms / MS_PER_SECOND

            def leave() -> None:
                if options.shares_port:
                    stop_listening(port)

            await drain(server, running, calls, streams, drain_s, leave=leave)
            for task in (checks, hints, *background):
                task.cancel()
    finally:
        # It has an effect only if something failed, or if this was cancelled, before the drain.
        try:
            await uninterrupted(server.stop(0))
        finally:
            await service.close()


def _make_server(
    store: Store,
    service: QueueService,
    running: RunningCalls,
    calls: OpenCalls,
    streams: OpenCalls,
    guard: Guard | None,
    *,
    shares_port: bool,
) -> tuple[grpc.aio.Server, HealthServicer, Admission]:
    allow_connections(store.settings.connections_max_count)
    server = grpc.aio.server(options=grpc_options(store.settings, shares_port=shares_port))
    admission = Admission(store.settings, store.metrics, known_waiting_calls(), close_connection)
    registrar: Any = Registrar(server, admission, store.metrics, calls, streams, guard)
    factory = CallFactory(store.settings, store.clock)
    settings = store.settings
    queue = servicer(
        service,
        delay_queue_service_pb2_grpc.DelayQueueServiceServicer,
        factory,
        store.metrics,
        running,
    )
    delay_queue_service_pb2_grpc.add_DelayQueueServiceServicer_to_server(queue, registrar)
    if settings.admin_api:
        admin = servicer(
            AdminService(store),
            delay_queue_admin_service_pb2_grpc.DelayQueueAdminServiceServicer,
            factory,
            store.metrics,
            running,
        )
        delay_queue_admin_service_pb2_grpc.add_DelayQueueAdminServiceServicer_to_server(
            admin, registrar
        )
    health_servicer = HealthServicer()
    if settings.health_api:
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, registrar)
    if settings.reflection:
        served = {
            QUEUE: True,
            ADMIN: settings.admin_api,
            health.SERVICE_NAME: settings.health_api,
            reflection.SERVICE_NAME: True,
        }
        described = ReflectionServicer([name for name, is_served in served.items() if is_served])
        # The stubs lack its types.
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
            described, registrar
        )
    return server, health_servicer, admission
