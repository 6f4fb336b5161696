"""Wakes Retrieves that wait when tasks of their topics become ready."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ddq.store.hints import Hint, HintSource, ReadyHint, Reset, TopicHint
from ddq.store.keys import ShardId

ROUND_STEP_COUNT = 64
ROUND_STEP_S = 0.01
"""After hints were lost, so many Retrieves ask the store at the same time, and the next ones after
this time: about as fast as one store node answers them."""


class Waiter:
    """One Retrieve that waits. ``shards`` has those it was woken for; empty: it asks all of them.

    Args:
        queues: of its topics, which keep whether it is idle or woken.

    Attributes:
        waits: False when its Retrieve has ended.
    """

    def __init__(self, topics: Sequence[str], queues: Sequence[_TopicWaiters] = ()) -> None:
        self.topics = topics
        self.shards: set[ShardId] = set()
        self.waits = True
        self._queues = queues
        self._event = asyncio.Event()

    def notify(self, shard: ShardId | None) -> None:
        """Wakes it, for one shard or for all."""
        if shard is not None and (self.shards or not self._event.is_set()):
            self.shards.add(shard)
        elif shard is None:
            self.shards.clear()
        if not self._event.is_set():
            self._event.set()
            for queue in self._queues:
                queue.wake(self)

    @property
    def notified(self) -> bool:
        """Whether it was woken and has not asked its shards yet."""
        return self._event.is_set()

    def take(self) -> frozenset[ShardId]:
        """The shards to ask; empty: all. Notifications from now on are new."""
        shards = frozenset(self.shards)
        self.shards.clear()
        if self._event.is_set():
            self._event.clear()
            for queue in self._queues:
                queue.return_(self)
        return shards

    async def wait(self, timeout_s: float) -> bool:
        """Waits to be woken; False if the time was over first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class _TopicWaiters:
    """The Retrieves that wait for one topic. Each step costs the same however many there are.

    Attributes:
        idle: those that wait, the longest waiting first.
        woken: those that were woken and have not asked their shards yet.
    """

    def __init__(self) -> None:
        self.idle: OrderedDict[Waiter, None] = OrderedDict()
        self.woken: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.idle) + len(self.woken)

    def wake(self, waiter: Waiter) -> None:
        """It was woken, perhaps for another topic."""
        del self.idle[waiter]
        self.woken[waiter] = None

    def return_(self, waiter: Waiter) -> None:
        """It has asked its shards, and waits again in its old place if it found nothing."""
        del self.woken[waiter]
        self.idle[waiter] = None
        self.idle.move_to_end(waiter, last=False)

    def remove(self, waiter: Waiter) -> None:
        """It no longer waits."""
        del (self.woken if waiter in self.woken else self.idle)[waiter]


class ReadyNotifier:
    """Hands each hint to as many waiting Retrieves as there are tasks, the longest waiting first.

    One task that becomes ready must not send every waiting Retrieve to the store.

    Args:
        hints: to which it listens from now on.
    """

    def __init__(self, hints: HintSource) -> None:
        hints.listen(self.on_hint)
        self._topics: dict[str, _TopicWaiters] = {}
        self._round: OrderedDict[Waiter, None] = OrderedDict()
        self._round_timer: asyncio.TimerHandle | None = None

    @contextmanager
    def waiting(self, topics: Sequence[str]) -> Iterator[Waiter]:
        """A waiter for these topics, while the block runs."""
        queues = [self._topics.setdefault(topic, _TopicWaiters()) for topic in topics]
        waiter = Waiter(topics, queues)
        for queue in queues:
            queue.idle[waiter] = None
        try:
            yield waiter
        finally:
            waiter.waits = False
            for topic, queue in zip(topics, queues, strict=True):
                queue.remove(waiter)
                if not queue:
                    del self._topics[topic]
            # Woken, and ended before it asked: the tasks are still there for the next waiter.
            if waiter.notified:
                for shard in waiter.shards:
                    self.notify(shard, 1)

    def notify(self, shard: ShardId, count: int) -> None:
        """``count`` tasks of the shard are ready."""
        queue = self._topics.get(shard.topic)
        if queue is None:
            return
        # Where too few are idle, those that were woken for another shard and have not asked it yet
        # ask this one too: their own tasks may be gone by then, and these would wait for the next
        # notification.
        again = [*itertools.islice(queue.woken, max(0, count - len(queue.idle)))]
        for _ in range(min(count, len(queue.idle))):
            next(iter(queue.idle)).notify(shard)
        for waiter in again:
            waiter.notify(shard)

    def notify_all(self, topic: str) -> None:
        """Has every Retrieve that waits for the topic ask all its shards, a part at a time.

        Each of them sends a request for each shard. All at once they would delay every other
        request to the store.
        """
        queue = self._topics.get(topic)
        if queue is not None:
            self._round |= dict.fromkeys((*queue.idle, *queue.woken))
        if self._round_timer is None:
            self._notify_next()

    def _notify_next(self) -> None:
        for _ in range(min(ROUND_STEP_COUNT, len(self._round))):
            waiter, _ = self._round.popitem(last=False)
            if waiter.waits:
                waiter.notify(None)
        self._round_timer = None
        if self._round:
            loop = asyncio.get_running_loop()
            self._round_timer = loop.call_later(ROUND_STEP_S, self._notify_next)

    def wake(self) -> None:
        """Wakes every Retrieve that waits, at once."""
        for queue in self._topics.values():
            for waiter in (*queue.idle, *queue.woken):
                waiter.notify(None)

    def has_waiters(self, topic: str) -> bool:
        """Whether a Retrieve waits for the topic."""
        return topic in self._topics

    def on_hint(self, hint: Hint) -> None:
        """Takes a hint from the feed."""
        if isinstance(hint, ReadyHint):
            self.notify(hint.shard, hint.count)
        elif isinstance(hint, TopicHint):
            self.notify_all(hint.topic)
        elif isinstance(hint, Reset):
            for topic in self._topics:
                self.notify_all(topic)
