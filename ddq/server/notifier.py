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
"""After hints were lost so many Retrieves look at the same time, and the next ones so much later:
about as fast as one store node answers them."""


class Ear:
    """One Retrieve that waits. ``rung`` holds the shards it was woken for; empty: look at all.

    Args:
        lines: of its topics, which learn when it is woken and when it has looked.

    Attributes:
        waits: False when its Retrieve has ended.
    """

    def __init__(self, topics: Sequence[str], lines: Sequence[_Line] = ()) -> None:
        self.topics = topics
        self.rung: set[ShardId] = set()
        self.waits = True
        self._lines = lines
        self._event = asyncio.Event()

    def ring(self, shard: ShardId | None) -> None:
        """Wakes it, for one shard or for all."""
        if shard is not None and (self.rung or not self._event.is_set()):
            self.rung.add(shard)
        elif shard is None:
            self.rung.clear()
        if not self._event.is_set():
            self._event.set()
            for line in self._lines:
                line.wake(self)

    @property
    def ringing(self) -> bool:
        """Whether it was woken and has not looked yet."""
        return self._event.is_set()

    def look(self) -> frozenset[ShardId]:
        """The shards to look at; empty: all. Rings from now on are new."""
        shards = frozenset(self.rung)
        self.rung.clear()
        if self._event.is_set():
            self._event.clear()
            for line in self._lines:
                line.return_(self)
        return shards

    async def heard(self, timeout_s: float) -> bool:
        """Waits to be woken; False when the time was over first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class _Line:
    """The Retrieves that wait for one topic. Each step costs the same however many there are.

    Attributes:
        idle: those that wait, the longest waiting first.
        woken: those that were woken and have not looked yet.
    """

    def __init__(self) -> None:
        self.idle: OrderedDict[Ear, None] = OrderedDict()
        self.woken: OrderedDict[Ear, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.idle) + len(self.woken)

    def wake(self, ear: Ear) -> None:
        """It was woken, perhaps for another topic."""
        del self.idle[ear]
        self.woken[ear] = None

    def return_(self, ear: Ear) -> None:
        """It has looked, and waits again in its old place if it found nothing."""
        del self.woken[ear]
        self.idle[ear] = None
        self.idle.move_to_end(ear, last=False)

    def remove(self, ear: Ear) -> None:
        """It waits no more."""
        del (self.woken if ear in self.woken else self.idle)[ear]


class ReadyBell:
    """Hands each hint to as many waiting Retrieves as there are tasks, the longest waiting first.

    One task that becomes ready must not send every waiting Retrieve to the store.

    Args:
        hints: to which it listens from now on.
    """

    def __init__(self, hints: HintSource) -> None:
        hints.listen(self.on_hint)
        self._lines: dict[str, _Line] = {}
        self._round: OrderedDict[Ear, None] = OrderedDict()
        self._round_timer: asyncio.TimerHandle | None = None

    @contextmanager
    def listening(self, topics: Sequence[str]) -> Iterator[Ear]:
        """An ear for these topics, as long as the block runs."""
        lines = [self._lines.setdefault(topic, _Line()) for topic in topics]
        ear = Ear(topics, lines)
        for line in lines:
            line.idle[ear] = None
        try:
            yield ear
        finally:
            ear.waits = False
            for topic, line in zip(topics, lines, strict=True):
                line.remove(ear)
                if not line:
                    del self._lines[topic]
            # Woken, and gone without looking: the tasks are still there for the next one.
            if ear.ringing:
                for shard in ear.rung:
                    self.ring(shard, 1)

    def ring(self, shard: ShardId, count: int) -> None:
        """``count`` tasks of the shard are ready."""
        line = self._lines.get(shard.topic)
        if line is None:
            return
        # Where too few are idle, those that were woken for another shard and have not looked yet
        # look at this one too: their own tasks may be gone when they come, and these would lie
        # unseen.
        again = [*itertools.islice(line.woken, max(0, count - len(line.idle)))]
        for _ in range(min(count, len(line.idle))):
            next(iter(line.idle)).ring(shard)
        for ear in again:
            ear.ring(shard)

    def ring_all(self, topic: str) -> None:
        """Has every Retrieve that waits for the topic look at everything, a part at a time.

        Each look is a request to the store for each shard. All at once they would keep out what
        else is asked of it.
        """
        line = self._lines.get(topic)
        if line is not None:
            self._round |= dict.fromkeys((*line.idle, *line.woken))
        if self._round_timer is None:
            self._go_round()

    def _go_round(self) -> None:
        for _ in range(min(ROUND_STEP_COUNT, len(self._round))):
            ear, _ = self._round.popitem(last=False)
            if ear.waits:
                ear.ring(None)
        self._round_timer = None
        if self._round:
            loop = asyncio.get_running_loop()
            self._round_timer = loop.call_later(ROUND_STEP_S, self._go_round)

    def wake(self) -> None:
        """Wakes every Retrieve that waits, at once."""
        for line in self._lines.values():
            for ear in (*line.idle, *line.woken):
                ear.ring(None)

    def is_heard(self, topic: str) -> bool:
        """Whether a Retrieve waits for the topic."""
        return topic in self._lines

    def on_hint(self, hint: Hint) -> None:
        """Takes a hint from the feed."""
        if isinstance(hint, ReadyHint):
            self.ring(hint.shard, hint.count)
        elif isinstance(hint, TopicHint):
            self.ring_all(hint.topic)
        elif isinstance(hint, Reset):
            for topic in self._lines:
                self.ring_all(topic)
