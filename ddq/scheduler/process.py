"""A scheduler in a process of its own, beside any number of others: ``ddq scheduler``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ddq.access import check_exposure, metrics_protection
from ddq.config import Settings, StartupError
from ddq.health import Health
from ddq.metrics import Metrics
from ddq.monitoring import served_metrics
from ddq.scheduler import Scheduler
from ddq.store.lifecycle import check_options, working_store
from ddq.store.watching import watch_store


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """The options of a scheduler process.

    Attributes:
        store_url: see ddq.store.topology.FORMS; a store of this process's own has no use.
        metrics_listen: HOST:PORT for Prometheus; None: nowhere.
        metrics: those that the parent of this process shows in place of metrics_listen.
        health: where the scheduler reports whether it is ready.
    """

    store_url: str
    settings: Settings = field(default_factory=Settings)
    metrics_listen: str | None = None
    metrics: Metrics | None = None
    health: Health = field(default_factory=Health, compare=False)


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """A scheduler that works: its store without the password, and where its metrics are."""

    store: str
    metrics: str | None = None


async def run_scheduler(
    options: SchedulerOptions, *, stop: asyncio.Event, on_ready: Callable[[SchedulerInfo], None]
) -> None:
    """Schedules until ``stop`` is set, then hands its leaderships over.

    Raises:
        StartupError: the options cannot be used, or the store is not there.
    """
    url = check_options(options.settings, options.store_url)
    if url.kind == "embedded":
        raise StartupError(
            "an embedded store belongs to the server that starts it, which has a scheduler of its "
            f"own: ddq serve --store {url}; or give the URL of a store that others reach as well"
        )
    check_exposure(options.settings, listen=None, metrics_listen=options.metrics_listen)
    async with (
        metrics_protection(options.settings, options.metrics_listen) as protection,
        served_metrics(options.metrics_listen, options.health, options.metrics, protection) as (
            metrics,
            metrics_address,
        ),
        working_store(url, options.settings, metrics, stop) as store,
    ):
        scheduler = Scheduler(store)
        async with asyncio.TaskGroup() as group:
            hints = group.create_task(store.hints.run(), name="ddq hints")
            watch = group.create_task(watch_store(store, options.health), name="ddq health")
            stopping = group.create_task(_stopping(stop, options.health), name="ddq stop")
            options.health.started()
            on_ready(SchedulerInfo(str(url), metrics_address))
            await scheduler.run(stop)
            for task in (hints, watch, stopping):
                task.cancel()


async def _stopping(stop: asyncio.Event, health: Health) -> None:
    await stop.wait()
    health.stopping()
