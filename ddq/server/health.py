"""Health by gRPC: SERVING while the store answers and its settings keep what it confirms."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from ddq.health import Health
from ddq.store.open import Store
from ddq.store.watching import watch_store


async def watch_health(
    store: Store, health: Health, health_servicer: HealthServicer, services: Sequence[str]
) -> None:
    """Keeps the health of ``services`` and of the whole server up to date, until cancelled."""

    async def show(serving: bool) -> None:
        store.metrics.serving.set(serving)
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *services):
            await health_servicer.set(name, status)

    await watch_store(store, health, show)
