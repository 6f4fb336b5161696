"""Looks at the store again and again: whether it answers, and keeps what it confirms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ddq.errors import DdqError
from ddq.health import Health
from ddq.store.checks import Finding
from ddq.store.lifecycle import examine_store, is_warning, store_call
from ddq.store.open import Store

log = logging.getLogger(__name__)

HEALTH_INTERVAL_S = 30.0
HEALTH_RETRY_S = 1.0
SETTINGS_INTERVAL_S = 120.0


async def watch_store(
    store: Store, health: Health, on_look: Callable[[bool], Awaitable[None]] | None = None
) -> None:
    """Reports the parts "store" and "store settings" until cancelled.

    Args:
        on_look: called after each look with whether the store can be used.
    """
    was_serving = True
    findings: tuple[Finding, ...] = ()
    loop = asyncio.get_running_loop()
    # It was examined a moment ago, before the process started.
    examined_s = loop.time()
    while True:
        try:
            await store.topics.version(store_call(store))
            if loop.time() >= examined_s + SETTINGS_INTERVAL_S:
                before, findings = findings, (await examine_store(store)).findings
                examined_s = loop.time()
                for finding in findings if findings != before else ():
                    log.error(
                        "the store does not keep what it confirms: %(finding)s",
                        {"finding": finding},
                    )
            health.report("store", None)
            serving = not findings or is_warning(store.settings)
            settings = None if serving else "; ".join(map(str, findings))
            health.report("store settings", settings)
        except DdqError as error:
            if was_serving:
                log.warning("not serving: %(error)s", {"error": error})
            health.report("store", str(error))
            serving = False
        was_serving = serving
        if on_look is not None:
            await on_look(serving)
        await asyncio.sleep(HEALTH_INTERVAL_S if serving else HEALTH_RETRY_S)
