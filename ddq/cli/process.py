"""One of several processes, started by their parent: python -m ddq.cli.process KIND NUMBER FD.

Its options are a JSON document on standard input, and its connection to the parent is FD.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import typer

from ddq.cli.running import LogFormat, LogLevel, run_until_stopped
from ddq.config import Settings
from ddq.health import Health
from ddq.metrics import Metrics
from ddq.processes import membership
from ddq.scheduler.process import SchedulerOptions, run_scheduler
from ddq.server import ServerOptions, run_server


def main(arguments: Sequence[str]) -> int:
    """Serves or schedules until the parent says, or is gone; returns the exit status."""
    kind, number, descriptor = arguments
    given = json.load(sys.stdin)
    metrics, health = Metrics().with_process(), Health()

    async def work(stop: asyncio.Event) -> None:
        parent = socket.socket(fileno=int(descriptor))
        async with membership(parent, metrics.registry, health, stop) as member:

            def ready(info: Any) -> None:
                member.ready(asdict(info))

            if kind == "serve":
                await run_server(_server(given, metrics, health), stop=stop, on_ready=ready)
            else:
                await run_scheduler(_scheduler(given, metrics, health), stop=stop, on_ready=ready)

    try:
        log_format = LogFormat(given.get("log_format", LogFormat.CONSOLE))
        run_until_stopped(work, LogLevel(given["log_level"]), log_format, process=int(number))
    except typer.Exit as end:
        return end.exit_code
    return 0


def _settings(given: dict[str, Any]) -> Settings:
    # A reload may start a newer version, which need not have each of them.
    known = {spec.name for spec in fields(Settings)}
    return Settings(**{name: value for name, value in given.items() if name in known})


def _server(given: dict[str, Any], metrics: Metrics, health: Health) -> ServerOptions:
    return ServerOptions(
        given["listen"],
        given["store"],
        given["scheduler"],
        _settings(given["settings"]),
        shares_port=True,
        metrics=metrics,
        health=health,
    )


def _scheduler(given: dict[str, Any], metrics: Metrics, health: Health) -> SchedulerOptions:
    return SchedulerOptions(
        given["store"], _settings(given["settings"]), metrics=metrics, health=health
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
