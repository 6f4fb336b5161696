"""The scheduler: moves what is due, by the leadership it holds, and sleeps in between.

There is no tick. Each shard has one moment at which it is to be looked at next: its next due
time or lease expiry, or an earlier one that a hint told of. A slow sweep looks at every shard
should all hints have been lost. No safety rests on the time or on the sleep: each script checks
nonce and epoch before it moves anything.

Of several schedulers one leads a shard, for as long as there is work. Each has a rank on each
shard, drawn from both names (rendezvous hashing), and who outranks a leader takes the shard from
it. So leadership spreads without anybody knowing how many schedulers there are.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from ddq.config import MS_PER_SECOND
from ddq.errors import DdqError, StoreMalformed, TopicNotFound
from ddq.keys import ShardId
from ddq.store.hints import DueHint, FreeHint, Hint, Reset, TopicHint
from ddq.store.offset import StoreOffset
from ddq.store.open import Store
from ddq.store.runner import Call
from ddq.store.upkeep import Leadership, Moved, Outlook
from ddq.task import Topic

log = logging.getLogger(__name__)

CONCURRENCY_MAX_COUNT = 16
RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
# The store counts whole milliseconds: who wakes at the very instant may come a fraction early.
MARGIN_S = 0.001
# How long who was turned away lets another begin. At the moment at which something is due its
# leader is at it; a shard whose leader is gone is late by this, once.
HOLD_BACK_S = 0.05
NAME_BYTES = 8
RANK_BYTES = 4
HAND_OVER_MAX_COUNT = 256
SAY_AGAIN_S = 10.0
# The sweep goes round in so many steps: what is looked at together shares a send, which is cheaper
# by far than to wake up for each shard.
SWEEP_STEPS = 64
TASK_STATES = ("scheduled", "ready", "leased", "dead")
MALFORMED_KINDS = ("set_aside", "stray")


@dataclass(eq=False, slots=True)
class _Shard:
    """What the scheduler knows of one shard; times are the event loop's, in seconds.

    Attributes:
        rank: of this scheduler on it.
        sweep_s: when the sweep comes to it; never yet, or hints were lost: at once.
        taken_until_s: another leads until then, as far as this one knows.
        turned_away: another led when this one last asked.
        led_until_s: until when nobody of no higher rank takes it from this scheduler.
        counts, oldest_ready_ms: what the last survey found.
        offset: of the clock of the node that has it.
        resignations: how many of its leaders were reported to have resigned.
        postponed_s: when there is something to do that waits for the leadership of another.
    """

    id: ShardId
    rank: int
    counts: Mapping[str, int] = field(default_factory=dict)
    oldest_ready_ms: int = 0
    wake_s: float = float("inf")
    leadership: Leadership | None = None
    taken_until_s: float = float("-inf")
    turned_away: bool = False
    led_until_s: float = float("-inf")
    busy: bool = False
    sweep_s: float = float("-inf")
    failures: int = 0
    offset: StoreOffset = field(default_factory=StoreOffset)
    resignations: int = 0
    postponed_s: float = float("inf")


class Scheduler:
    """Promotes and reaps on every shard that it can lead.

    Args:
        store: whose hints it must be made a listener of: ``store.hints.listen(scheduler.on_hint)``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settings = store.settings
        self._shards: dict[ShardId, _Shard] = {}
        self._heap: list[tuple[float, int, _Shard]] = []
        self._order = itertools.count()
        self._nudge = asyncio.Event()
        self._topics_s = float("-inf")
        self._name = store.entropy.token(NAME_BYTES)
        self._metrics = store.metrics
        self._modest_until_s = float("-inf")
        self._said: dict[str, float] = {}
        self._stopping = False

    # Being woken ---------------------------------------------------------------------------

    def on_hint(self, hint: Hint) -> None:
        """Takes a hint from the feed."""
        now_s = asyncio.get_running_loop().time()
        if isinstance(hint, DueHint):
            shard = self._shards.get(hint.shard)
            if shard is None:
                self._topics_s = float("-inf")
            elif not shard.offset.known:
                self._wake(shard, now_s)
            else:
                self._wake(shard, self._moment_s(shard, hint.at_ms))
        elif isinstance(hint, FreeHint):
            shard = self._shards.get(hint.shard)
            if shard is not None and shard.offset.known:
                shard.resignations += 1
                shard.taken_until_s, shard.turned_away = float("-inf"), False
                # A hint of an earlier task may have come before this one.
                self._wake(shard, min(self._moment_s(shard, hint.at_ms), shard.postponed_s))
        elif isinstance(hint, TopicHint):
            self._topics_s = float("-inf")
        elif isinstance(hint, Reset):
            self._topics_s = float("-inf")
            for shard in self._shards.values():
                shard.sweep_s = shard.taken_until_s = float("-inf")
                self._wake(shard, now_s)
        self._nudge.set()

    def _wake(self, shard: _Shard, at_s: float) -> None:
        """The shard is looked at then at the latest; while it is busy, when it is done."""
        if at_s < shard.wake_s:
            shard.wake_s = at_s
            heapq.heappush(self._heap, (at_s, next(self._order), shard))
            self._nudge.set()

    def _local_s(self, shard: _Shard, store_ms: int) -> float:
        """The event loop's time at which the clock of the shard's node says ``store_ms``."""
        return shard.offset.local_s(store_ms) + MARGIN_S

    def _moment_s(self, shard: _Shard, store_ms: int) -> float:
        """When to go and do what is to be done at ``store_ms``, as far as others let us."""
        at_s = self._local_s(shard, store_ms)
        if shard.leadership is not None:
            return at_s
        if at_s < shard.taken_until_s:
            shard.postponed_s = min(shard.postponed_s, at_s)
        return max(at_s + HOLD_BACK_S * shard.turned_away, shard.taken_until_s)

    # The loop ------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Schedules until ``stop`` is set, then hands its leaderships over."""
        stopping = asyncio.create_task(stop.wait(), name="ddq scheduler stop")
        stopping.add_done_callback(lambda _: self._stop())
        self._be_modest()
        self._show_figures()
        try:
            async with asyncio.TaskGroup() as visits:
                while not stop.is_set():
                    self._nudge.clear()
                    await self._refresh_topics()
                    self._start_visits(visits)
                    await self._sleep()
            await self._resign_all()
        finally:
            stopping.cancel()

    def _stop(self) -> None:
        self._stopping = True
        self._nudge.set()

    def _be_modest(self) -> None:
        """Takes no shard from another for a while: who has just started, had trouble with the
        store, or was too slow to keep a shard may be about to fail again. A process that crashes
        every few seconds would otherwise take its share each time, and leave it unattended."""
        lease_s = self._settings.leader_lease_ms / MS_PER_SECOND
        self._modest_until_s = asyncio.get_running_loop().time() + lease_s

    async def _sleep(self) -> None:
        """Until the next moment of a shard or of the topics' table, or a nudge."""
        busy = sum(shard.busy for shard in self._shards.values())
        until_s = self._topics_s + self._topics_interval_s
        if self._heap and busy < CONCURRENCY_MAX_COUNT:
            until_s = min(until_s, self._heap[0][0])
        try:
            async with asyncio.timeout_at(until_s):
                await self._nudge.wait()
        except TimeoutError:
            pass

    @property
    def _sweep_s(self) -> float:
        return self._settings.sweep_interval_ms / MS_PER_SECOND

    @property
    def _topics_interval_s(self) -> float:
        # A topic that no hint told of is rarer than a lost "due", so it is looked for less often.
        return 2 * self._sweep_s

    def _call(self) -> Call:
        loop = asyncio.get_running_loop()
        return Call(loop.time() + self._settings.store_timeout_ms / MS_PER_SECOND, durable=False)

    async def _refresh_topics(self) -> None:
        """Learns of new topics, and forgets those that have gone."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._topics_s + self._topics_interval_s:
            return
        self._topics_s = now_s
        try:
            topics, malformed = await self._store.directory.load_all(self._call())
        except DdqError as error:
            log.warning("the topics cannot be read, trying again: %s", error)
            self._topics_s = now_s - self._topics_interval_s + RETRY_MAX_S / 5
            return
        for problem in malformed:
            log.error("a topic is left out: %s", problem)
        wanted = {
            ShardId(topic.name, index)
            for topic in topics
            if not topic.deleting
            for index in range(topic.shards)
        }
        for gone in self._shards.keys() - wanted:
            del self._shards[gone]
        for shard_id in sorted(wanted - self._shards.keys(), key=lambda s: (s.topic, s.index)):
            shard = self._shards[shard_id] = _Shard(shard_id, self._rank(shard_id))
            self._wake(shard, now_s)

    def _rank(self, shard: ShardId) -> int:
        digest = hashlib.sha256(self._name + shard.tag.encode()).digest()
        return int.from_bytes(digest[:RANK_BYTES], "big")

    def _start_visits(self, visits: asyncio.TaskGroup) -> None:
        """Looks at every shard whose moment has come, a bounded number at once."""
        now_s = asyncio.get_running_loop().time()
        busy = sum(shard.busy for shard in self._shards.values())
        while self._heap and self._heap[0][0] <= now_s and busy < CONCURRENCY_MAX_COUNT:
            at_s, _, shard = heapq.heappop(self._heap)
            # An entry that an earlier moment has replaced, or whose topic has gone.
            if at_s != shard.wake_s or self._shards.get(shard.id) is not shard or shard.busy:
                continue
            shard.busy = True
            shard.wake_s = shard.postponed_s = float("inf")
            busy += 1
            visits.create_task(self._visit(shard), name=f"ddq visit {shard.id.tag}")

    async def _visit(self, shard: _Shard) -> None:
        """Does what is due on one shard, and notes when to look again."""
        loop = asyncio.get_running_loop()
        try:
            next_s = await self._work(shard)
            shard.failures = 0
        except TopicNotFound:
            self._topics_s = float("-inf")
            next_s = loop.time() + self._sweep_s
        except StoreMalformed as error:
            # Only this shard suffers; it is looked at again in case somebody repairs it.
            log.error("shard %s is left out: %s", shard.id.tag, error)  # noqa: TRY400 - no bug of ours
            next_s = loop.time() + self._sweep_s
        except DdqError as error:
            delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2**shard.failures)
            shard.failures = min(shard.failures + 1, 10)
            self._be_modest()
            self._complain(shard, error, delay_s)
            next_s = loop.time() + delay_s
        finally:
            shard.busy = False
        # A hint that came meanwhile may have set an earlier moment; its heap entry was skipped.
        woken_s, shard.wake_s = shard.wake_s, float("inf")
        self._wake(shard, min(next_s, woken_s))

    def _complain(self, shard: _Shard, error: DdqError, delay_s: float) -> None:
        """One line for a kind of trouble, not one for each of a thousand shards."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._said.get(error.reason, float("-inf")) + SAY_AGAIN_S:
            self._said[error.reason] = now_s
            log.warning("shard %s: %s; again in %.1f s", shard.id.tag, error, delay_s)

    # What it shows -----------------------------------------------------------------------------

    def _show_figures(self) -> None:
        """Has the figures that are states counted when somebody asks for them."""
        metrics = self._metrics
        metrics.shards.set_function(lambda: len(self._shards))
        metrics.shards_led.set_function(self._led_count)
        for state in TASK_STATES:
            metrics.tasks.labels(state).set_function(partial(self._sum, state))
        for kind in MALFORMED_KINDS:
            metrics.malformed.labels(kind).set_function(partial(self._sum, kind))
        metrics.oldest_ready.set_function(
            lambda: max((s.oldest_ready_ms for s in self._known()), default=0) / MS_PER_SECOND
        )

    def _known(self) -> list[_Shard]:
        # A copy: who asks does so in a thread of its own.
        return list(self._shards.values())

    def _sum(self, counter: str) -> int:
        return sum(shard.counts.get(counter, 0) for shard in self._known())

    def _led_count(self) -> int:
        now_s = time.monotonic()
        return sum(s.leadership is not None and s.led_until_s > now_s for s in self._known())

    # One visit -----------------------------------------------------------------------------

    async def _work(self, shard: _Shard) -> float:
        """Surveys if it is time, promotes and reaps until nothing is due; the next moment."""
        loop = asyncio.get_running_loop()
        topic = await self._store.topics.require(shard.id.topic, self._call())
        outlook: Outlook | None = None
        if shard.sweep_s <= loop.time():
            outlook = await self._survey(topic, shard)
        taken = shard.leadership is None and shard.taken_until_s > loop.time()
        if outlook is None or ((outlook.promotable or outlook.reapable) and not taken):
            outlook = await self._lead(topic, shard)
        return self._next_moment(shard, outlook)

    async def _survey(self, topic: Topic, shard: _Shard) -> Outlook:
        """Looks without leading, and collects what is to be forgotten."""
        asked_s = asyncio.get_running_loop().time()
        survey = await self._store.upkeep.survey(topic, shard.id, self._call())
        # The first time comes sooner, by another part of the interval on each shard, so that from
        # then on the sweep goes round evenly.
        first = shard.sweep_s == float("-inf")
        in_s = self._sweep_s * (1 - shard.rank / 256**RANK_BYTES if first else 1)
        step_s = self._sweep_s / SWEEP_STEPS
        now_s = asyncio.get_running_loop().time()
        shard.sweep_s = math.ceil((now_s + in_s) / step_s) * step_s
        outlook = self._note(shard, survey.outlook, asked_s)
        self._metrics.swept.inc()
        shard.counts = survey.counts
        oldest_ms = survey.oldest_ready_due_ms
        shard.oldest_ready_ms = 0 if oldest_ms is None else max(0, outlook.store_ms - oldest_ms)
        while outlook.collect_ms is not None and outlook.collect_ms <= outlook.store_ms:
            collected, outlook = await self._store.upkeep.collect(topic, shard.id, self._call())
            self._metrics.collected.inc(collected)
            if collected == 0:
                break
        return outlook

    async def _lead(self, topic: Topic, shard: _Shard) -> Outlook:
        """Moves what is due, if the shard can be led, until nothing is or it is time to stop."""
        upkeep, loop = self._store.upkeep, asyncio.get_running_loop()
        step = upkeep.promote
        while True:
            asked_s = loop.time()
            if shard.leadership is None:
                resignations = shard.resignations
                acquired = await upkeep.acquire(
                    topic, shard.id, None, self._call(),
                    rank=shard.rank, challenge=loop.time() >= self._modest_until_s,
                )  # fmt: skip
                outlook = self._note(shard, acquired.outlook, asked_s)
                shard.leadership = acquired.leadership
                shard.turned_away = acquired.leadership is None
                if acquired.leadership is None and shard.resignations != resignations:
                    # The hint overtook this reply: it is about a leader that has resigned since.
                    shard.turned_away = False
                    return outlook
                if acquired.leadership is None:
                    over_ms = outlook.store_ms + max(acquired.remaining_ms, 1)
                    shard.taken_until_s = self._local_s(shard, over_ms)
                    return outlook
                self._metrics.acquired.inc()
                log.debug("leads shard %s by epoch %d", shard.id.tag, acquired.leadership.epoch)
            else:
                moved = await step(topic, shard.id, shard.leadership, self._call())
                outlook = self._note(shard, moved.outlook, asked_s)
                if moved.deposed:
                    log.info("shard %s is led by another scheduler now", shard.id.tag)
                    self._metrics.deposed.inc()
                    shard.leadership = None
                    self._be_modest()
                    continue
                self._count(step == upkeep.promote, moved)
            shard.led_until_s = loop.time() + self._settings.leader_lease_ms / MS_PER_SECOND
            if self._stopping:
                return outlook
            # In turn: a flood of due tasks must not keep expired leases waiting.
            if outlook.reapable and (step == upkeep.promote or not outlook.promotable):
                step = upkeep.reap
            elif outlook.promotable:
                step = upkeep.promote
            else:
                return outlook

    def _count(self, promotion: bool, moved: Moved) -> None:
        (self._metrics.promoted if promotion else self._metrics.reaped).inc(moved.count)
        if moved.late_ms is not None:
            self._metrics.lateness.observe(moved.late_ms / MS_PER_SECOND)

    def _note(self, shard: _Shard, outlook: Outlook, asked_s: float) -> Outlook:
        """Keeps how far the store's clock is from the event loop's; asked for at ``asked_s``."""
        answered_s = asyncio.get_running_loop().time()
        shard.offset.note(outlook.store_ms, asked_s, answered_s)
        return outlook

    def _next_moment(self, shard: _Shard, outlook: Outlook) -> float:
        known = [at_ms for at_ms in (outlook.due_ms, outlook.expiry_ms) if at_ms is not None]
        moments = (self._moment_s(shard, at_ms) for at_ms in known)
        return min([shard.sweep_s, *moments])

    async def _resign_all(self) -> None:
        """Hands over, so that the next leader need not wait for the leases to run out."""
        call, free = self._call(), asyncio.Semaphore(HAND_OVER_MAX_COUNT)
        async with asyncio.TaskGroup() as group:
            for shard in self._shards.values():
                if shard.leadership is not None:
                    group.create_task(self._resign(shard, shard.leadership, call, free))

    async def _resign(
        self, shard: _Shard, held: Leadership, call: Call, free: asyncio.Semaphore
    ) -> None:
        shard.leadership = None
        async with free:
            try:
                topic = await self._store.topics.require(shard.id.topic, call)
                await self._store.upkeep.resign(topic, shard.id, held, call)
            except DdqError as error:
                log.warning("shard %s is not handed over: %s", shard.id.tag, error)
