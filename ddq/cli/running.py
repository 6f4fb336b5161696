"""How ddq runs a server or a scheduler: its log, its signals, and how it says why it cannot."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import typer

from ddq import logs
from ddq.cli.exits import CommandError, ExitCode, guarded
from ddq.cli.options import parse_address
from ddq.cli.signals import stopping
from ddq.config import PROCESSES_MAX_COUNT, Settings, StartupError
from ddq.errors import DdqError


class LogLevel(StrEnum):
    """How much goes to stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    CONSOLE = "console"
    JSON = "json"


Format = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="DDQ_LOG_FORMAT",
        help="Lines for people, or one JSON document each.",
    ),
]
Level = Annotated[
    LogLevel, typer.Option("--log-level", envvar="DDQ_LOG_LEVEL", help="What goes to stderr.")
]
StoreLocation = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="DDQ_STORE",
        metavar="URL",
        help=(
            "embedded:FOLDER, redis://HOST:PORT/DB, unix:///SOCKET, "
            "sentinel://HOST:PORT,HOST:PORT,HOST:PORT/MASTER or cluster://HOST:PORT,HOST:PORT; "
            "with TLS rediss://, sentinels://, clusters://."
        ),
    ),
]
MetricsListen = Annotated[
    str | None,
    typer.Option(
        "--metrics-listen",
        envvar="DDQ_METRICS_LISTEN",
        metavar="HOST:PORT",
        help=(
            "Where /metrics, /livez and /readyz are, over HTTP; with certificate and access "
            "file of the gRPC port, if it has them."
        ),
        parser=parse_address,
        show_default="nowhere",
    ),
]

Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        envvar="DDQ_PROCESSES",
        min=1,
        max=PROCESSES_MAX_COUNT,
        help="How many processes share the work, as one server; SIGHUP replaces them in turn.",
    ),
]


def metrics_url(address: str, settings: Settings) -> str:
    """Where the metrics are, for people."""
    encrypted = settings.tls_server_cert and not settings.metrics_insecure
    return f"http{'s' if encrypted else ''}://{address}/metrics"


def metrics_note(address: str | None, settings: Settings) -> str:
    """The end of the line that says what runs."""
    return "" if address is None else f", metrics on {metrics_url(address, settings)}"


GC_THRESHOLD_COUNT = 20_000
"""New containers from one collection of the youngest generation to the next; Python's own is 700.

A batch of 100 tasks makes a few thousand, which are gone when it is answered: each collection in
between would visit those that are still in use, and free nothing.
"""


def _tune_garbage_collection() -> None:
    """Leaves what was imported out of every collection, and collects more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_COUNT, 20, 20)


def run_until_stopped(
    work: Callable[[asyncio.Event], Awaitable[None]],
    log_level: LogLevel,
    log_format: LogFormat,
    process: int | None = None,
) -> None:
    """Runs ``work``, which ends when the event that it is given is set: by Ctrl-C or SIGTERM.

    Args:
        process: the number of this process among those of one parent; it is in each log line.
    """
    logs.configure(log_level.value, log_format.value, process=process)

    async def until_stopped() -> None:
        _tune_garbage_collection()
        stop = asyncio.Event()
        with stopping(stop.set):
            try:
                await work(stop)
            except (StartupError, DdqError) as error:
                raise CommandError(str(error), ExitCode.UNAVAILABLE) from None
            except OSError as error:
                raise CommandError(f"cannot start: {error}", ExitCode.UNAVAILABLE) from None

    guarded(until_stopped())
