"""ddq dev and ddq serve: a server in this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddq import __version__
from ddq.cli.exits import CommandError, ExitCode, guarded
from ddq.cli.options import DEFAULT_ADDRESS, parse_address, with_settings
from ddq.cli.output import say
from ddq.cli.signals import stopping
from ddq.config import Settings
from ddq.errors import DdqError


class LogLevel(StrEnum):
    """How much goes to stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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
Level = Annotated[
    LogLevel, typer.Option("--log-level", envvar="DDQ_LOG_LEVEL", help="What goes to stderr.")
]


@with_settings
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
    log_level: Level = LogLevel.WARNING,
) -> None:
    """Run everything in one process: server, scheduler, and a store in a folder.

    Ctrl-C stops it; what it holds is there again at the next start.
    """
    say(f"ddq {__version__}: starting a server, a scheduler and an embedded store …")

    def ready(address: str, _: str) -> None:
        program = _program()
        where = "" if address == DEFAULT_ADDRESS else f" --address {address}"
        sys.stdout.write(
            f"  address  {address}\n"
            f"  data     {data} (kept, and found again at the next start)\n"
            "\n"
            "Ready; Ctrl-C stops it. Try, in another terminal:\n"
            "\n"
            f"  {program} enqueue hello 'hello, world' --delay 5s{where}\n"
            f"  {program} work hello --count 1{where}\n"
            "\n"
        )
        sys.stdout.flush()

    _serve(listen, f"embedded:{data}", settings, log_level, ready, scheduler=True)
    say("Stopped.")


@with_settings
def serve(
    settings: Settings,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            "-s",
            envvar="DDQ_STORE",
            metavar="URL",
            help="embedded:FOLDER, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///SOCKET.",
        ),
    ],
    listen: Listen = DEFAULT_ADDRESS,
    scheduler: Annotated[
        bool, typer.Option(help="Also promote tasks that are due and take back expired leases.")
    ] = True,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Run a server on a store of your own. As many as you like may share a store."""

    def ready(address: str, where: str) -> None:
        say(f"ddq {__version__} on {address}, store {where}")

    _serve(listen, store, settings, log_level, ready, scheduler=scheduler)


def _serve(
    listen: str,
    store: str,
    settings: Settings,
    log_level: LogLevel,
    ready: Callable[[str, str], None],
    *,
    scheduler: bool,
) -> None:
    # Late, so that commands which only talk to a server do not load one.
    from ddq.server import ServerOptions, StartupError, run_server  # noqa: PLC0415

    logging.basicConfig(
        level=log_level.value.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )

    async def until_stopped() -> None:
        stop = asyncio.Event()
        with stopping(stop.set):
            try:
                await run_server(
                    ServerOptions(listen, store, scheduler=scheduler, settings=settings),
                    stop=stop,
                    on_ready=lambda info: ready(info.address, info.store),
                )
            except (StartupError, DdqError) as error:
                raise CommandError(str(error), ExitCode.UNAVAILABLE) from None
            except OSError as error:
                raise CommandError(f"cannot start: {error}", ExitCode.UNAVAILABLE) from None

    guarded(until_stopped())


def _program() -> str:
    """How to call ddq from where the person is: not every environment is on the PATH."""
    if shutil.which("ddq"):
        return "ddq"
    here = Path(sys.argv[0]).absolute()
    with contextlib.suppress(ValueError):
        return str(here.relative_to(Path.cwd()))
    return str(here)
