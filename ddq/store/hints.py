"""Wake-up hints: published inside scripts, lossy, repeatable and reorderable by contract.

Nothing rests on a hint. After each connection that is made anew a Reset is delivered first, so
that whoever listens looks at everything once. A connection that has fallen silent is made anew
too: behind a partition it would stay open, and say nothing, for hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from ddq.errors import DdqError
from ddq.keys import HINTS, ShardId
from ddq.store.topology import Node, Topology

log = logging.getLogger(__name__)

RECONNECT_MIN_S = 0.05
RECONNECT_MAX_S = 2.0
# A hint lost in a connection that hangs delays a task until the safety sweep, unless it is noticed.
SILENCE_MAX_S = 6.0
PING_INTERVAL_S = 2.0
OPEN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DueHint:
    """Something of the shard becomes due, or expires, at ``at_ms``: earlier than all before."""

    shard: ShardId
    at_ms: int


@dataclass(frozen=True, slots=True)
class ReadyHint:
    """``count`` tasks of the shard became ready."""

    shard: ShardId
    count: int


@dataclass(frozen=True, slots=True)
class TopicHint:
    """A topic was made."""

    topic: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Hints may have been missed: look at everything."""


Hint = DueHint | ReadyHint | TopicHint | Reset
Listener = Callable[[Hint], None]


def parse_hint(message: bytes) -> Hint | None:
    """A hint as a script published it; None for anything else on the channel."""
    try:
        kind, name, value = message.decode().split(" ")
        if kind == "topic":
            return TopicHint(name)
        shard = ShardId.parse(name)
        if shard is not None and kind == "due":
            return DueHint(shard, int(value))
        if shard is not None and kind == "ready":
            return ReadyHint(shard, int(value))
    except ValueError:
        pass
    return None


class HintFeed:
    """Listens on the channel and hands each hint to every listener.

    Args:
        topology: says where to subscribe, and when to do so anew.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._listeners: list[Listener] = []
        self._patience: asyncio.Timeout | None = None
        self._changes = 0
        topology.on_change(self._on_change)

    def listen(self, listener: Listener) -> None:
        """``listener`` is called with each hint from now on; it must not block or raise."""
        self._listeners.append(listener)

    def _deliver(self, hint: Hint) -> None:
        for listener in self._listeners:
            listener(hint)

    def _on_change(self, _node: Node, _reason: str) -> None:
        self._changes += 1
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Listens until cancelled, through every loss of the connection."""
        delay_s = RECONNECT_MIN_S
        while True:
            changes = self._changes
            try:
                async with self._subscribed() as connection:
                    delay_s = RECONNECT_MIN_S
                    self._deliver(Reset())
                    await self._listen(connection, changes)
            except (OSError, redis.exceptions.RedisError, DdqError) as error:
                log.warning("wake-up hints are interrupted: %s", str(error) or type(error).__name__)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RECONNECT_MAX_S)

    @contextlib.asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[AbstractConnection]:
        deadline_s = asyncio.get_running_loop().time() + OPEN_TIMEOUT_S
        connection = await self._topology.subscriber(deadline_s)
        try:
            async with asyncio.timeout_at(deadline_s):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_packed_command(
                    connection.pack_command("SUBSCRIBE", HINTS), check_health=False
                )
                await connection.read_response(disable_decoding=True)
            yield connection
        finally:
            with contextlib.suppress(OSError, redis.exceptions.RedisError):
                await connection.disconnect(nowait=True)

    async def _listen(self, connection: AbstractConnection, changes: int) -> None:
        """Reads hints until the connection fails or falls silent, or a master has changed."""
        loop = asyncio.get_running_loop()
        pings = loop.create_task(self._ping(connection), name="ddq hints ping")
        try:
            async with asyncio.timeout(SILENCE_MAX_S) as self._patience:
                while changes == self._changes:
                    message = await connection.read_response(disable_decoding=True)
                    self._patience.reschedule(loop.time() + SILENCE_MAX_S)
                    hint = parse_hint(message[2]) if message[0] == b"message" else None
                    if hint is not None:
                        self._deliver(hint)
        finally:
            self._patience = None
            pings.cancel()
            await asyncio.gather(pings, return_exceptions=True)

    @staticmethod
    async def _ping(connection: AbstractConnection) -> None:
        """Makes a connection that is well say something; one that is not fails the reader."""
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            await connection.send_packed_command(
                connection.pack_command("PING"), check_health=False
            )
