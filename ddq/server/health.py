"""Health: SERVING while the store answers and its settings keep what it confirms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from ddq.errors import DdqError
from ddq.store.checks import Finding
from ddq.store.lifecycle import examine_store, is_warning, store_call
from ddq.store.open import Store

log = logging.getLogger(__name__)

HEALTH_INTERVAL_S = 30.0
HEALTH_RETRY_S = 1.0
SETTINGS_INTERVAL_S = 120.0


async def watch_health(
    store: Store, health_servicer: HealthServicer, services: Sequence[str]
) -> None:
    """Keeps the health of ``services`` and of the whole server up to date, until cancelled."""
    was_serving = True
    findings: tuple[Finding, ...] = ()
    loop = asyncio.get_running_loop()
    # It was examined a moment ago, before the server started.
    examined_s = loop.time()
    while True:
        try:
            await store.topics.version(store_call(store))
            if loop.time() >= examined_s + SETTINGS_INTERVAL_S:
                before, findings = findings, (await examine_store(store)).findings
                examined_s = loop.time()
                for finding in findings if findings != before else ():
                    log.error("the store does not keep what it confirms: %s", finding)
            serving = not findings or is_warning(store.settings)
        except DdqError as error:
            if was_serving:
                log.warning("not serving: %s", error)
            serving = False
        was_serving = serving
        store.metrics.serving.set(serving)
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *services):
            await health_servicer.set(name, status)
        await asyncio.sleep(HEALTH_INTERVAL_S if serving else HEALTH_RETRY_S)
