"""The library's other faces, recorded: what a Worker uses of a client, and the blocking client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Self

from chaos.history.recorder import Recorder
from chaos.history.streams import RecordedStreams
from chaos.history.writer import HistoryWriter
from ddq.client import Client, LeaseStream, SyncClient


class WorkersClient:
    """Stands in for the client of a Worker; each call is by a process that does nothing else.

    Args:
        name: of the processes, without a dot.
        max_tasks: how many tasks the worker may ask for at the same time.
    """

    def __init__(self, writer: HistoryWriter, client: Client, name: str, max_tasks: int) -> None:
        self._writer = writer
        self._client = client
        self._name = name
        self._max_tasks = max_tasks
        self._free: list[Recorder] = []
        self._count = 0
        self.streams = RecordedStreams(writer, client, f"{name}c")

    def duplicate(self) -> WorkersClient:
        """See Client.duplicate."""
        name = f"{self._name}d"
        return WorkersClient(self._writer, self._client.duplicate(), name, self._max_tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def stream_retrieve(
        self,
        topics: str | Sequence[str],
        *,
        lease: timedelta,
        poll: timedelta,
        on_change: Callable[[], None],
    ) -> LeaseStream:
        """See Client.stream_retrieve."""
        names = [topics] if isinstance(topics, str) else topics
        return self.streams.open(
            names, max_tasks=self._max_tasks, lease=lease, poll=poll, on_change=on_change
        )

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._free:
                recorder = self._free.pop()
            else:
                self._count += 1
                recorder = Recorder(self._writer, self._client, f"{self._name}{self._count}")
            try:
                return await getattr(recorder, name)(*args, **kwargs)
            finally:
                self._free.append(recorder)

        return call


class BlockingClient:
    """A SyncClient, called in threads.

    Args:
        client: of the same servers.
    """

    def __init__(self, client: Client) -> None:
        self._sync = SyncClient(client.address)

    async def close(self) -> None:
        """See SyncClient.close."""
        await asyncio.to_thread(self._sync.close)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._sync, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


__all__ = ["BlockingClient", "WorkersClient"]
