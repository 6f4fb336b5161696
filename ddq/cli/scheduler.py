"""ddq scheduler: a scheduler in this process, beside any number of others."""

from __future__ import annotations

from ddq import __version__
from ddq.cli.configured import configured
from ddq.cli.output import say
from ddq.cli.running import (
    Format,
    Level,
    LogFormat,
    LogLevel,
    MetricsListen,
    Processes,
    StoreLocation,
    metrics_note,
    run_until_stopped,
)
from ddq.config import Settings


@configured
def scheduler(
    settings: Settings,
    store: StoreLocation,
    processes: Processes = 1,
    metrics_listen: MetricsListen = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """Run a scheduler: it makes tasks ready when they are due and takes back expired leases.

    As many as you like may share a store: they share the work, and take over from each other. With
    none on a store, nothing there becomes due.
    """
    if processes > 1:
        from ddq.cli.several import run_several  # noqa: PLC0415 - loaded when used

        run_several(
            "scheduler", processes, {"store": store}, settings,
            metrics_listen=metrics_listen, log_level=log_level, log_format=log_format,
            ready=lambda info, metrics: say(
                f"ddq {__version__} schedules in {processes} processes, store {info['store']}"
                f"{metrics_note(metrics, settings)}"
            ),
        )  # fmt: skip
        return
    from ddq.scheduler.process import SchedulerOptions, run_scheduler  # noqa: PLC0415 - loaded when used

    options = SchedulerOptions(store, settings, metrics_listen)
    run_until_stopped(
        lambda stop: run_scheduler(
            options,
            stop=stop,
            on_ready=lambda info: say(
                f"ddq {__version__} schedules, store {info.store}"
                + metrics_note(info.metrics, settings)
            ),
        ),
        log_level,
        log_format,
    )
