"""Wakes Retrieves that wait when tasks of their topics become ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ddq.keys import ShardId
from ddq.store.hints import Hint, ReadyHint, Reset, TopicHint


class Ear:
    """One Retrieve that waits. ``rung`` holds the shards it was woken for; empty: look at all."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.rung: set[ShardId] = set()
        self._event = asyncio.Event()

    def ring(self, shard: ShardId | None) -> None:
        """Wakes it, for one shard or for all."""
        if shard is not None and (self.rung or not self._event.is_set()):
            self.rung.add(shard)
        elif shard is None:
            self.rung.clear()
        self._event.set()

    @property
    def ringing(self) -> bool:
        """Whether it was woken and has not looked yet."""
        return self._event.is_set()

    def look(self) -> frozenset[ShardId]:
        """The shards to look at; empty: all. Rings from now on are new."""
        shards = frozenset(self.rung)
        self.rung.clear()
        self._event.clear()
        return shards

    async def heard(self, timeout_s: float) -> bool:
        """Waits to be woken; False when the time was over first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class ReadyBell:
    """Hands each hint to as many waiting Retrieves as there are tasks, the longest waiting first.

    One task that becomes ready must not send every waiting Retrieve to the store.
    """

    def __init__(self) -> None:
        self._ears: dict[str, dict[Ear, None]] = {}

    @contextmanager
    def listening(self, topics: Sequence[str]) -> Iterator[Ear]:
        """An ear for these topics, as long as the block runs."""
        ear = Ear(topics)
        for topic in topics:
            self._ears.setdefault(topic, {})[ear] = None
        try:
            yield ear
        finally:
            for topic in topics:
                del self._ears[topic][ear]
                if not self._ears[topic]:
                    del self._ears[topic]
            # Woken, and gone without looking: the tasks are still there for the next one.
            if ear.ringing:
                for shard in ear.rung:
                    self.ring(shard, 1)

    def ring(self, shard: ShardId, count: int) -> None:
        """``count`` tasks of the shard are ready."""
        ears = self._ears.get(shard.topic, {})
        idle = [ear for ear in ears if not ear.ringing]
        # Where nobody is idle, who was woken for another shard and has not looked yet looks at
        # this one too: his own tasks may be gone when he comes, and these would lie unseen.
        for ear in [*idle, *(ear for ear in ears if ear.ringing)][:count]:
            ear.ring(shard)

    def ring_all(self, topic: str) -> None:
        """Wakes every Retrieve that waits for the topic, to look at everything."""
        for ear in self._ears.get(topic, ()):
            ear.ring(None)

    def wake(self) -> None:
        """Wakes every Retrieve that waits, to look at everything."""
        for topic in self._ears:
            self.ring_all(topic)

    def is_heard(self, topic: str) -> bool:
        """Whether a Retrieve waits for the topic."""
        return topic in self._ears

    def on_hint(self, hint: Hint) -> None:
        """Takes a hint from the feed."""
        if isinstance(hint, ReadyHint):
            self.ring(hint.shard, hint.count)
        elif isinstance(hint, TopicHint):
            self.ring_all(hint.topic)
        elif isinstance(hint, Reset):
            self.wake()
