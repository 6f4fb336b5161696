"""A port that leads to another: what NAT, a port-forward or a proxy in front of a store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from ddq.store.topology import Node


class Forwarder:
    """Forwards connections on 127.0.0.1.

    Attributes:
        target: where they lead.
        connections_count: how many there were.
        swallows: what the target sends does not arrive.
    """

    def __init__(self, target: Node) -> None:
        self.target = target
        self.connections_count = 0
        self.swallows = False
        self._server: asyncio.Server | None = None
        self._served: set[asyncio.Task[None]] = set()

    @property
    def node(self) -> Node:
        """Where it listens."""
        assert self._server is not None
        return Node("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Takes a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Closes the port and every connection."""
        if self._server is not None:
            self._server.close()
            await self.cut()
            await self._server.wait_closed()

    async def cut(self) -> None:
        """Closes every connection."""
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        self.connections_count += 1
        try:
            # The target is dead, and so is the way to it.
            with suppress(OSError):
                there, back = await asyncio.open_connection(self.target.host, self.target.port)
                try:
                    await _either(_pump(reader, back), _pump(there, writer, lambda: self.swallows))
                finally:
                    back.close()
        except asyncio.CancelledError:
            pass
        finally:
            self._served.discard(task)
            writer.close()


async def _either(*pumps: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    swallows: Callable[[], bool] = lambda: False,
) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            if not swallows():
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def forwarding(*targets: Node) -> AsyncIterator[dict[Node, Forwarder]]:
    """One forwarder to each target."""
    forwarders = {target: Forwarder(target) for target in targets}
    try:
        for forwarder in forwarders.values():
            await forwarder.start()
        yield forwarders
    finally:
        for forwarder in forwarders.values():
            await forwarder.stop()
