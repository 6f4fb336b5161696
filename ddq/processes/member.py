"""What one of several processes tells its parent: that it works, its metrics, and its health.

One JSON document per line, in both directions; a key that one side does not know is ignored, since
a reload may start a newer version than that of the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry

from ddq.health import Reporting
from ddq.processes.figures import snapshot

LINE_MAX_BYTES = 64 * 1024 * 1024


class Member:
    """One of several processes, by its connection to the parent."""

    def __init__(
        self, writer: asyncio.StreamWriter, registry: CollectorRegistry, health: Reporting
    ) -> None:
        self._writer = writer
        self._registry = registry
        self._health = health

    def ready(self, info: Mapping[str, Any]) -> None:
        """It works now; ``info`` is for the line that says so."""
        self._say({"ready": dict(info)})

    def show(self) -> None:
        """Sends its metrics, and why it is not ready."""
        self._say(
            {
                "reasons": dict(self._health.readiness().reasons),
                "metrics": [asdict(family) for family in snapshot(self._registry)],
            }
        )

    def _say(self, document: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(document).encode() + b"\n")


@contextlib.asynccontextmanager
async def membership(
    sock: socket.socket, registry: CollectorRegistry, health: Reporting, stop: asyncio.Event
) -> AsyncIterator[Member]:
    """Answers the parent until the block ends, and sends the last metrics then.

    Args:
        stop: is set when the parent is gone: this process drains and ends too.
    """
    reader, writer = await asyncio.open_connection(sock=sock, limit=LINE_MAX_BYTES)
    member = Member(writer, registry, health)

    async def answer() -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if "show" in json.loads(line):
                    member.show()
        stop.set()

    answering = asyncio.create_task(answer(), name="ddq parent")
    try:
        yield member
    finally:
        answering.cancel()
        await asyncio.wait({answering})
        with contextlib.suppress(OSError):
            member.show()
            await writer.drain()
            writer.close()
            await writer.wait_closed()
