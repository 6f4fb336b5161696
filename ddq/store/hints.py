"""Wake-up hints: published inside scripts, lossy, repeatable and reorderable by contract.

Nothing rests on a hint. After each connection that is made anew a Reset is delivered first, so
that whoever listens looks at everything once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from ddq.keys import HINTS, ShardId

log = logging.getLogger(__name__)

RECONNECT_MIN_S = 0.05
RECONNECT_MAX_S = 2.0


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
        make: makes connections to the store.
    """

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """``listener`` is called with each hint from now on; it must not block or raise."""
        self._listeners.append(listener)

    def _deliver(self, hint: Hint) -> None:
        for listener in self._listeners:
            listener(hint)

    async def run(self) -> None:
        """Listens until cancelled, through every loss of the connection."""
        delay_s = RECONNECT_MIN_S
        while True:
            connection = self._make()
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_packed_command(
                    connection.pack_command("SUBSCRIBE", HINTS), check_health=False
                )
                await connection.read_response(disable_decoding=True)
                delay_s = RECONNECT_MIN_S
                self._deliver(Reset())
                while True:
                    message = await connection.read_response(disable_decoding=True)
                    hint = parse_hint(message[2]) if message[0] == b"message" else None
                    if hint is not None:
                        self._deliver(hint)
            except (OSError, redis.exceptions.RedisError) as error:
                log.warning("wake-up hints are interrupted: %s", error)
            finally:
                with contextlib.suppress(OSError, redis.exceptions.RedisError):
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RECONNECT_MAX_S)
