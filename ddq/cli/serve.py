"""ddq dev and ddq serve: a server in this process."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddq import __version__
from ddq.cli.configured import configured
from ddq.cli.options import parse_address
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
    metrics_url,
    run_until_stopped,
)
from ddq.config import DEFAULT_ADDRESS, Settings

if TYPE_CHECKING:
    # Else commands which only talk to a server would load one.
    from ddq.server import ServerInfo, ServerOptions

Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        "-l",
        envvar="DDQ_LISTEN",
        metavar="HOST:PORT",
        help="Where to listen; port 0 takes a free one.",
        parser=parse_address,
    ),
]


@configured
def dev(
    settings: Settings,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            envvar="DDQ_DATA",
            metavar="FOLDER",
            help="Where tasks are kept, and found again at the next start.",
        ),
    ] = Path("ddq-data"),
    listen: Listen = DEFAULT_ADDRESS,
    metrics_listen: MetricsListen = None,
    log_level: Level = LogLevel.WARNING,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """Run everything in one process: server, scheduler, and a store in a folder.

    Ctrl-C stops it; what it holds is there again at the next start.
    """
    say(f"ddq {__version__}: starting a server, a scheduler and an embedded store …")

    def ready(info: ServerInfo) -> None:
        program = _program()
        where = "" if info.address == DEFAULT_ADDRESS else f" --address {info.address}"
        metrics = f"  metrics  {metrics_url(info.metrics, settings)}\n" if info.metrics else ""
        sys.stdout.write(
            f"  address  {info.address}\n"
            f"  data     {data} (kept, and found again at the next start)\n"
            f"{metrics}"
            "\n"
            "Ready; Ctrl-C stops it. Try, in another terminal:\n"
            "\n"
            f"  {program} enqueue hello 'hello, world' --delay 5s{where}\n"
            f"  {program} work hello --count 1{where}\n"
            "\n"
        )
        sys.stdout.flush()

    from ddq.server import ServerOptions  # noqa: PLC0415 - loaded when used

    options = ServerOptions(
        listen, f"embedded:{data}", True, settings=settings, metrics_listen=metrics_listen
    )
    _serve(options, log_level, log_format, ready)
    say("Stopped.")


@configured
def serve(
    settings: Settings,
    store: StoreLocation,
    listen: Listen = DEFAULT_ADDRESS,
    scheduler: Annotated[
        bool | None,
        typer.Option(
            envvar="DDQ_SCHEDULER",
            help="Also be a scheduler, as ddq scheduler is; needs none beside it.",
            show_default="on an embedded store only",
        ),
    ] = None,
    processes: Processes = 1,
    metrics_listen: MetricsListen = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """Run a server on a store of your own. As many as you like may share a store.

    Something has to run a scheduler on that store: ddq scheduler, or one of the servers.
    """
    if processes > 1:
        _serve_together(
            settings, store, listen, scheduler, processes, metrics_listen, log_level, log_format
        )
        return

    from ddq.server import ServerOptions  # noqa: PLC0415 - loaded when used

    def ready(info: ServerInfo) -> None:
        say(
            f"ddq {__version__} on {info.address}, store {info.store}"
            + metrics_note(info.metrics, settings)
        )

    options = ServerOptions(
        listen, store, scheduler, settings=settings, metrics_listen=metrics_listen
    )
    _serve(options, log_level, log_format, ready)


def _serve_together(
    settings: Settings,
    store: str,
    listen: str,
    scheduler: bool | None,
    processes: int,
    metrics_listen: str | None,
    log_level: LogLevel,
    log_format: LogFormat,
) -> None:
    from ddq.cli.several import run_several  # noqa: PLC0415 - loaded when used

    def ready(info: dict[str, Any], metrics: str | None) -> None:
        say(
            f"ddq {__version__} on {info['address']} in {processes} processes, "
            f"store {info['store']}{metrics_note(metrics, settings)}"
        )

    run_several(
        "serve", processes, {"store": store, "scheduler": scheduler}, settings,
        listen=listen, metrics_listen=metrics_listen, log_level=log_level,
        log_format=log_format, ready=ready,
    )  # fmt: skip


def _serve(
    options: ServerOptions,
    log_level: LogLevel,
    log_format: LogFormat,
    ready: Callable[[ServerInfo], None],
) -> None:
    from ddq.server import run_server  # noqa: PLC0415 - loaded when used

    run_until_stopped(
        lambda stop: run_server(options, stop=stop, on_ready=ready), log_level, log_format
    )


def _program() -> str:
    """How to call ddq from where the person is: not every environment is on the PATH."""
    if shutil.which("ddq"):
        return "ddq"
    here = Path(sys.argv[0]).absolute()
    with contextlib.suppress(ValueError):
        return str(here.relative_to(Path.cwd()))
    return str(here)
