"""--processes: ddq serve and ddq scheduler as several processes of one parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import typer

from ddq.access import check_exposure, metrics_protection
from ddq.cli.exits import CommandError, ExitCode, UsageError
from ddq.cli.running import LogFormat, LogLevel, run_until_stopped
from ddq.config import MS_PER_SECOND, Settings
from ddq.monitoring import served_registry
from ddq.processes import ChildFailedError, ChildKilledError, Supervised, Supervisor, reserved_port
from ddq.store.lifecycle import check_options

STOP_MARGIN_S = 4.0
"""What a process has after its drain, before it is killed: the parent then ends within the 10 s
that container engines give."""


def run_several(
    kind: str,
    count: int,
    given: dict[str, Any],
    settings: Settings,
    *,
    listen: str | None = None,
    metrics_listen: str | None,
    log_level: LogLevel,
    log_format: LogFormat,
    ready: Callable[[dict[str, Any], str | None], None],
) -> None:
    """Runs processes of ddq.cli.process until they are stopped by Ctrl-C or SIGTERM.

    Args:
        kind: see ddq.cli.process.
        given: further options for each of them.
        listen: the port that they share; None: none.
        ready: is given what the first one said, and the address of the metrics.
    """

    async def work(stop: asyncio.Event) -> None:
        url = check_options(settings, given["store"])
        if kind == "serve" and url.kind == "embedded":
            raise UsageError(
                "an embedded store belongs to the one server that starts it; leave --processes "
                "out, or give the URL of a store of your own"
            )
        check_exposure(settings, listen=listen, metrics_listen=metrics_listen)
        async with contextlib.AsyncExitStack() as stack:
            options = given | {
                "settings": asdict(settings),
                "log_level": log_level.value,
                "log_format": log_format.value,
            }
            if listen is not None:
                options["listen"] = stack.enter_context(reserved_port(listen))
            supervisor = Supervisor(
                Supervised(
                    # Without -P the folder in which it is started would come before the library.
                    (sys.executable, "-P", "-m", "ddq.cli.process", kind),
                    json.dumps(options).encode(),
                    count,
                    settings.drain_ms / MS_PER_SECOND + STOP_MARGIN_S,
                )
            )
            stack.enter_context(_on_hangup(supervisor.reload))
            shown = None
            if metrics_listen is not None:
                protection = await stack.enter_async_context(
                    metrics_protection(settings, metrics_listen)
                )
                shown = await stack.enter_async_context(
                    served_registry(metrics_listen, supervisor.registry, supervisor, protection)
                )
            try:
                await supervisor.run(stop, lambda info: ready(info, shown))
            except ChildFailedError as error:
                raise typer.Exit(error.status) from None
            except ChildKilledError as error:
                raise CommandError(str(error), ExitCode.FAILED) from None

    run_until_stopped(work, log_level, log_format)


@contextlib.contextmanager
def _on_hangup(call: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
