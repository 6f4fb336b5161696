"""What every process that works on a store has around it: the store, its first check, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

from ddq.config import MS_PER_SECOND, Settings, StartupError
from ddq.configuration import check_settings
from ddq.metrics import Metrics
from ddq.store.checks import Examination, examine
from ddq.store.embedded import EmbeddedStore, StoreStartError
from ddq.store.open import Store, open_store
from ddq.store.runner import Call
from ddq.store.startup import wait_for_store
from ddq.store.topology import StoreUrl, StoreUrlError, open_topology, parse_store_url

log = logging.getLogger(__name__)

EMBEDDED_LEADER_LEASE_MS = 1_000


def check_options(settings: Settings, store_url: str) -> StoreUrl:
    """The store's URL, read; raises StartupError if it or the settings cannot be used."""
    try:
        check_settings(settings)
        url = parse_store_url(store_url, settings.store_address_map)
        url.check_files()
        return url
    except (ValueError, StoreUrlError) as error:
        raise StartupError(str(error)) from None


@contextlib.asynccontextmanager
async def working_store(
    url: StoreUrl, settings: Settings, metrics: Metrics, stop: asyncio.Event
) -> AsyncIterator[Store]:
    """A store that has answered once, until the block ends.

    Args:
        stop: ends the wait for the store; is set when the store's own process ends by itself.

    Raises:
        StartupError: the store is not there.
        DdqError: the embedded store could not be started, or ended.
    """
    async with _store_process(url, settings.store_wait_ms / MS_PER_SECOND, stop) as reachable:
        if url.kind == "embedded":
            # No other process can lead on an embedded store, so after a crash the
            # dead leader's lease is only a delay.
            lease_ms = min(settings.leader_lease_ms, EMBEDDED_LEADER_LEASE_MS)
            settings = replace(settings, leader_lease_ms=lease_ms)
        store = open_store(open_topology(reachable), settings, metrics=metrics)
        try:
            async with _watched(store):
                await wait_for_store(
                    lambda: _check(store, url),
                    str(url),
                    settings.store_wait_ms / MS_PER_SECOND,
                    stop,
                )
                yield store
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def _watched(store: Store) -> AsyncIterator[None]:
    """The topology watches for failovers while the block runs."""
    watch = asyncio.create_task(store.router.topology.run(), name="ddq topology")
    watch.add_done_callback(_end_loudly)
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


def _end_loudly(watch: asyncio.Task[None]) -> None:
    """A process that no longer learns of failovers must not keep serving."""
    if not watch.cancelled() and watch.exception() is not None:
        log.critical("watching the store has failed: this process ends", exc_info=watch.exception())
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.asynccontextmanager
async def _store_process(
    url: StoreUrl, wait_s: float, stop: asyncio.Event
) -> AsyncIterator[StoreUrl]:
    """The store's own process if it is embedded; elsewhere nothing."""
    if url.kind != "embedded":
        yield url
        return
    assert url.path is not None
    embedded = EmbeddedStore(url.path, ready_timeout_s=wait_s)
    await _started(embedded, stop)
    ended = False

    async def watch() -> None:
        nonlocal ended
        await embedded.wait()
        ended = True
        stop.set()

    watcher = asyncio.create_task(watch(), name="ddq embedded store")
    try:
        yield StoreUrl("unix", path=embedded.socket_path)
    finally:
        watcher.cancel()
        await embedded.stop()
    if ended:
        # Every reply that left was synced before; a new start continues from there.
        raise StoreStartError(
            f"the embedded store ended by itself; see {embedded.folder}/valkey.log, then start "
            "again: nothing that was acknowledged is lost"
        )


async def _started(embedded: EmbeddedStore, stop: asyncio.Event) -> None:
    """Starts the embedded store, unless the process is to stop before that has loaded its data.

    Raises:
        StartupError: it is to stop.
        StoreStartError: as EmbeddedStore.start.
    """
    start = asyncio.create_task(embedded.start(), name="ddq embedded store starts")
    stopped = asyncio.create_task(stop.wait(), name="ddq stop")
    try:
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            raise StartupError(f"stopped while the embedded store loaded {embedded.folder}")
    finally:
        stopped.cancel()
        start.cancel()
        await asyncio.gather(start, stopped, return_exceptions=True)
    start.result()


async def _check(store: Store, url: StoreUrl) -> None:
    """Asks the store once, so that a wrong address is reported at the start and not at first use.

    Raises:
        StartupError: it would not keep what it confirms.
        DdqError: it does not answer, or cannot be used.
    """
    await _check_settings(store, url)
    await store.topics.version(store_call(store))


async def _check_settings(store: Store, url: StoreUrl) -> None:
    """Refuses a store that would not keep what it confirms."""
    examination = await examine_store(store)
    if not examination.findings:
        return
    said = "".join(f"\n  {finding}" for finding in examination.findings)
    if is_warning(store.settings):
        log.warning(
            "the store at %(store)s does not keep what it confirms:%(findings)s",
            {"store": url, "findings": said},
        )
        return
    raise StartupError(
        f"the store at {url} would not keep what it confirms, as durability "
        f"{store.settings.durability} promises:{said}"
    )


async def examine_store(store: Store) -> Examination:
    """SharedRefresh at the store's settings, and has the barrier follow its timing.

    Raises:
        StoreUnreachable: no master can be asked.
    """
    deadline_s = store_call(store).deadline_s
    router, settings = store.router, store.settings
    examination = await examine(router.topology, router.nodes, settings, deadline_s)
    router.keep_time(examination.timing(settings), may_widen=not examination.findings)
    return examination


def is_warning(settings: Settings) -> bool:
    """Whether findings are only said."""
    return settings.durability == "fast" or not settings.store_checks


def store_call(store: Store) -> Call:
    """A call of the process's own."""
    timeout_s = store.settings.store_timeout_ms / MS_PER_SECOND
    return Call(asyncio.get_running_loop().time() + timeout_s)
