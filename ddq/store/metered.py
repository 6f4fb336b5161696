"""Counts what goes to the store, at the seam through which all of it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ddq.metrics import Metrics
from ddq.store.connection import Command, Connection, NotSentError, Reply, ReplyLostError

BARRIERS = {"WAIT", "WAITAOF"}


class MeteredConnection:
    """A Connection that counts its sends."""

    def __init__(self, inner: Connection, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        metrics, began_s = self._metrics, time.perf_counter()
        metrics.send_commands.observe(len(commands))
        waits = any(command[0] in BARRIERS for command in commands)
        if waits:
            metrics.waits.inc()
        try:
            replies = await self._inner.send(commands, timeout_s)
        except NotSentError:
            metrics.sends_failed.labels("unsent").inc()
            raise
        except ReplyLostError:
            metrics.sends_failed.labels("lost").inc()
            raise
        took_s = time.perf_counter() - began_s
        metrics.send_seconds.observe(took_s)
        if waits:
            metrics.barrier_seconds.observe(took_s)
        return replies

    async def close(self) -> None:
        """See Connection.close."""
        await self._inner.close()
