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
    """One Retrieve that waits.

    Args:
        queues: of its topics, which keep what it does at present.

    Attributes:
        shards: those that it was woken for since it last asked.
        taken: those that it was woken for when it last asked. If it ends before they were asked, it
            passes them on.
        waits: False when its Retrieve has ended.
    """

    def __init__(self, topics: Sequence[str], queues: Sequence[_TopicWaiters] = ()) -> None:
        self.topics = topics
        self.shards: set[ShardId] = set()
        self.taken: frozenset[ShardId] = frozenset()
        self.waits = True
        self._asks_all = False
        self._queues = queues
        self._event = asyncio.Event()

    def notify(self, shard: ShardId | None) -> None:
        """Wakes it, for one shard or for all."""
        # Kept also where it asks all shards: no other Retrieve was woken for this one.
        if shard is None:
            self._asks_all = True
        else:
            self.shards.add(shard)
        if not self._event.is_set():
            self._event.set()
            for queue in self._queues:
                queue.move(self, queue.woken)

    @property
    def notified(self) -> bool:
        """Whether it was woken and has not asked its shards yet."""
        return self._event.is_set()

    def take(self) -> frozenset[ShardId]:
        """The shards to ask; empty: all. Notifications from now on are new."""
        self.taken = frozenset(self.shards)
        asked = frozenset() if self._asks_all else self.taken
        self.shards.clear()
        self._asks_all = False
        if self._event.is_set():
            self._event.clear()
            for queue in self._queues:
                queue.move(self, queue.asking, first=True)
        return asked

    def ask(self) -> None:
        """It asks its shards, whether it was woken or not."""
        if not self._event.is_set():
            for queue in self._queues:
                queue.move(self, queue.asking)

    def rest(self) -> None:
        """It has what it wanted, and will ask or wait again soon: others are woken before it."""
        if not self._event.is_set():
            for queue in self._queues:
                queue.move(self, queue.resting)

    async def wait(self, timeout_s: float) -> bool:
        """Waits to be woken; False if the time was over first."""
        if not self._event.is_set():
            for queue in self._queues:
                # It was woken for nothing, and keeps its place.
                queue.move(self, queue.idle, first=bool(self.taken))
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            for queue in self._queues:
                queue.move(self, queue.asking)
            return False
        return True


class _TopicWaiters:
    """The Retrieves that wait for one topic. Each step costs the same however many there are.

    Attributes:
        idle: those that wait, the longest waiting first.
        asking: those that ask their shards at present, which may take long where a store node is
            away. They ask once more if they are woken meanwhile.
        woken: those that were woken and have not asked their shards yet.
        resting: those of streams whose latest reply is being sent.
    """

    def __init__(self) -> None:
        self.idle: OrderedDict[Waiter, None] = OrderedDict()
        self.asking: OrderedDict[Waiter, None] = OrderedDict()
        self.woken: OrderedDict[Waiter, None] = OrderedDict()
        self.resting: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.idle) + len(self.asking) + len(self.woken) + len(self.resting)

    def __iter__(self) -> Iterator[Waiter]:
        """All of them, those first that have nothing to do."""
        return itertools.chain(self.idle, self.asking, self.woken, self.resting)

    def move(self, waiter: Waiter, to: OrderedDict[Waiter, None], *, first: bool = False) -> None:
        """It does something else from now on."""
        self.remove(waiter)
        to[waiter] = None
        if first:
            to.move_to_end(waiter, last=False)

    def remove(self, waiter: Waiter) -> None:
        """It no longer waits."""
        for waiters in (self.idle, self.asking, self.woken, self.resting):
            if waiter in waiters:
                del waiters[waiter]


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
            queue.asking[waiter] = None
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
        # Where too few are idle, those that are asking ask once more, and those that were woken for
        # another shard and have not asked it yet ask this one too: their own tasks may be gone by
        # then, and these would wait for the next notification.
        for waiter in [*itertools.islice(queue, count)]:
            waiter.notify(shard)

    def notify_all(self, topic: str) -> None:
        """Has every Retrieve that waits for the topic ask all its shards, a part at a time.

        Each of them sends a request for each shard. All at once they would delay every other
        request to the store.
        """
        queue = self._topics.get(topic)
        if queue is not None:
            self._round |= dict.fromkeys(queue)
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
            for waiter in [*queue]:
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
