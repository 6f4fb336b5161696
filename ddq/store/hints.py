"""Wake-up hints: published inside scripts, lossy, repeatable and reorderable by contract.

Nothing rests on a hint. After each new connection a Reset is delivered first, so that
listeners check everything once. A connection that has fallen silent is replaced
too: behind a partition it would stay open, and say nothing, for hours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import redis.exceptions

from ddq.errors import DdqError
from ddq.store.keys import HINTS, ShardId
from ddq.store.subscription import Subscription, subscribed
from ddq.store.topology import Node, Topology

log = logging.getLogger(__name__)

RECONNECT_MIN_S = 0.05
RECONNECT_MAX_S = 2.0
FIND_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DueHint:
    """Something of the shard becomes due, or expires, at ``at_ms``: earlier than all before."""

    shard: ShardId
    at_ms: int


@dataclass(frozen=True, slots=True)
class FreeHint:
    """The leader of the shard has resigned; there is something to do at ``at_ms``: years ahead if
    there is nothing yet."""

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
    """Hints may have been missed: check everything."""


Hint = DueHint | FreeHint | ReadyHint | TopicHint | Reset
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
        if shard is not None and kind == "free":
            return FreeHint(shard, int(value))
        if shard is not None and kind == "ready":
            return ReadyHint(shard, int(value))
    except ValueError:
        pass
    return None


class HintSource(Protocol):
    """Delivers hints to its listeners."""

    def listen(self, listener: Listener) -> None:
        """``listener`` is called with each hint from now on; it must not block or raise."""


class HintFeed:
    """Listens on the channel and hands each hint to every listener.

    Args:
        topology: says where to subscribe, and when to do so again.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._listeners: list[Listener] = []
        self._subscription: Subscription | None = None
        self._changes = 0
        topology.on_change(self._on_change)

    def listen(self, listener: Listener) -> None:
        """See HintSource.listen."""
        self._listeners.append(listener)

    def _deliver(self, hint: Hint) -> None:
        for listener in self._listeners:
            listener(hint)

    def _on_change(self, _node: Node, _reason: str) -> None:
        self._changes += 1
        if self._subscription is not None:
            self._subscription.interrupt()

    async def run(self) -> None:
        """Listens until cancelled, through every loss of the connection."""
        loop = asyncio.get_running_loop()
        delay_s = RECONNECT_MIN_S
        while True:
            changes = self._changes
            try:
                connection = await self._topology.subscriber(loop.time() + FIND_TIMEOUT_S)
                async with subscribed(connection, HINTS) as self._subscription:
                    if changes != self._changes:
                        # The node was demoted before it could be distinguished from the new one.
                        continue
                    delay_s = RECONNECT_MIN_S
                    self._deliver(Reset())
                    async for message in self._subscription:
                        if hint := parse_hint(message):
                            self._deliver(hint)
            except (OSError, redis.exceptions.RedisError, DdqError) as error:
                log.warning(
                    "wake-up hints are interrupted: %(error)s",
                    {"error": str(error) or type(error).__name__},
                )
            finally:
                self._subscription = None
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RECONNECT_MAX_S)
