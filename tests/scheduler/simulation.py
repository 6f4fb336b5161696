"""A store of any number of shards for one scheduler, in virtual time.

Each node runs one script after the other, and a script takes the longer the more it does. So how
late a promotion is follows from the order in which the scheduler asks, and is the same in each run.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ddq.config import MS_PER_SECOND, Settings
from ddq.errors import StoreUnreachable, TopicNotFound
from ddq.metrics import null_metrics
from ddq.scheduler import Scheduler
from ddq.store.hints import DueHint, Hint, Reset, TopicHint
from ddq.store.keys import ShardId
from ddq.store.records import FORMAT
from ddq.store.router import MIGRATION_PAUSE_S, SlotMovingError
from ddq.store.runner import Call
from ddq.store.scheduler_api import Acquired, Leadership, Moved, NextWakeUp, Survey
from ddq.store.topics import FIRST_PAGE, READ_MAX_COUNT, RegistryPage, RegistryVersion
from ddq.task import Durability, Receipt, Topic, TopicSettings
from tests.stateful.virtual import VirtualLoop
from tests.support.hints import NoHints

START_MS = 1_800_000_000_000
# Measured on the machine on which this was written, rounded.
SCRIPT_S = 0.000_15
TASK_S = 0.000_04
TOMBSTONE_S = 0.000_01
UPGRADE_COUNT = 100
"""Tasks of one step of an upgrade."""
RECEIPT = Receipt(Durability.FAST, 0, b"", START_MS, 1, False)


@dataclass
class SimulatedShard:
    """One shard of the store.

    Attributes:
        due_ms: due times of its tasks, a heap.
        expiry_ms: expiries of its leases, a heap.
        tombstones: how many may be removed.
        moving: its slot is being moved to another master.
        upgrade_steps: left until its records have the store's format.
    """

    node: str
    due_ms: list[int] = field(default_factory=list)
    expiry_ms: list[int] = field(default_factory=list)
    tombstones: int = 0
    moving: bool = False
    upgrade_steps: int = 0


@dataclass(frozen=True)
class Ran:
    """A script that the store has run: how many entries it moved, and when it was done."""

    script: str
    shard: ShardId
    count: int
    at_s: float
    late_s: float


class SimulatedStore:
    """Stands for ddq.store.open.Store, as far as a scheduler uses it."""

    def __init__(self, loop: VirtualLoop, **settings: Any) -> None:
        self.loop = loop
        self.settings = Settings(**settings)
        self.metrics = null_metrics()
        self.entropy = SimpleNamespace(token=bytes)
        self.router = SimpleNamespace(topology=self)
        self.topics = self
        self.directory = self
        self.scheduler_api = self
        self.store_format = FORMAT
        self.hints = NoHints()
        self.shards: dict[ShardId, SimulatedShard] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self.hung: set[str] = set()
        self.ran: list[Ran] = []
        self.asked: Counter[str] = Counter()
        self.records_read_count = 0
        self._changes = 0
        self._counts: dict[str, int] = {}

    # What a test sets up -------------------------------------------------------------------

    def now_ms(self) -> int:
        """The store's clock."""
        return START_MS + round(self.loop.time() * MS_PER_SECOND)

    def add(self, name: str, node: str = "node", shards: int = 1) -> None:
        """A topic."""
        self._changes += 1
        self._counts[name] = shards
        for index in range(shards):
            self.shards[ShardId(name, index)] = SimulatedShard(node)

    def remove(self, name: str) -> None:
        """Deletes a topic."""
        self._changes += 1
        for index in range(self._counts.pop(name)):
            del self.shards[ShardId(name, index)]

    def enqueue(self, name: str, count: int = 1, in_s: float = 0.0) -> DueHint:
        """Tasks of a topic's first shard; the hint that its script publishes."""
        due_ms = self.now_ms() + round(in_s * MS_PER_SECOND)
        shard = ShardId(name, 0)
        for _ in range(count):
            heapq.heappush(self.shards[shard].due_ms, due_ms)
        return DueHint(shard, due_ms)

    # The store's time ----------------------------------------------------------------------

    @asynccontextmanager
    async def _script(self, node: str, call: Call) -> AsyncIterator[None]:
        """A script runs on a node, when those that came before it are done."""
        if node in self.hung:
            await asyncio.sleep(call.deadline_s - self.loop.time())
            raise StoreUnreachable(f"{node} does not answer")
        async with self._turns.setdefault(node, asyncio.Lock()):
            await asyncio.sleep(SCRIPT_S)
            yield

    @asynccontextmanager
    async def _shard_script(self, its: SimulatedShard, call: Call) -> AsyncIterator[None]:
        """A script of one shard, which waits for the shard's slot as ddq.store.router does."""
        while its.moving:
            if not call.waits_for_slot:
                raise SlotMovingError("the slot is being moved")
            if self.loop.time() + MIGRATION_PAUSE_S >= call.deadline_s:
                raise StoreUnreachable("the slot was being moved until the deadline")
            await asyncio.sleep(MIGRATION_PAUSE_S)
        async with self._script(its.node, call):
            yield

    def _note(self, script: str, shard: ShardId, count: int, late_ms: int = 0) -> None:
        self.ran.append(Ran(script, shard, count, self.loop.time(), late_ms / MS_PER_SECOND))

    def _shard(self, shard: ShardId) -> SimulatedShard:
        if shard not in self.shards:
            raise TopicNotFound(f"topic {shard.topic!r} does not exist")
        return self.shards[shard]

    def _next_wake_up(self, shard: SimulatedShard) -> NextWakeUp:
        now_ms = self.now_ms()
        return NextWakeUp(
            now_ms,
            shard.due_ms[0] if shard.due_ms else None,
            shard.expiry_ms[0] if shard.expiry_ms else None,
            now_ms if shard.tombstones else None,
        )

    # The table of topics -------------------------------------------------------------------

    def _names(self) -> list[str]:
        return list(self._counts)

    def _topic(self, name: str) -> Topic:
        return Topic(name, b"u" * 16, 1, self._counts[name], TopicSettings(), 0)

    async def _ask(self, action: str, call: Call, records_count: int = 0) -> None:
        self.asked[action] += 1
        self.records_read_count += records_count
        async with self._script("registry", call):
            pass

    async def version(self, call: Call) -> RegistryVersion:
        """See TopicRegistry.version."""
        await self._ask("version", call)
        return RegistryVersion(self._changes, b"", len(self._counts))

    async def load_page(self, cursor: bytes, call: Call) -> RegistryPage:
        """See TopicRegistry.load_page."""
        names = self._names()
        at = int(cursor)
        part = names[at : at + READ_MAX_COUNT]
        await self._ask("page", call, len(part))
        after = at + READ_MAX_COUNT
        return RegistryPage(
            str(after).encode() if after < len(names) else FIRST_PAGE,
            [name.encode() for name in part],
            [self._topic(name) for name in part],
        )

    async def load_many(self, names: list[bytes], call: Call) -> list[Topic | None]:
        """See TopicRegistry.load_many."""
        await self._ask("many", call, len(names))
        return [
            self._topic(name.decode()) if name.decode() in self._counts else None for name in names
        ]

    async def load_all(self, call: Call) -> tuple[list[Topic], list[Any]]:
        """What a scheduler of 0.2.0 asked for."""
        await self._ask("all", call, len(self._names()))
        return [self._topic(name) for name in self._names()], []

    async def require(self, name: str, call: Call) -> Topic:
        """See TopicRegistry.require; the topic is known."""
        return Topic(name, b"u" * 16, 1, 1, TopicSettings(), 0)

    # The scripts of a scheduler ------------------------------------------------------------

    def known_node(self, key: str) -> str:
        """See Topology.known_node."""
        shard = ShardId.parse(key.removeprefix("ddq:control:"))
        return self.shards[shard].node if shard in self.shards else ""

    async def survey(self, topic: Topic, shard: ShardId, call: Call) -> Survey:
        """See SchedulerApi.survey."""
        its = self._shard(shard)
        async with self._shard_script(its, call):
            next_wake_up = self._next_wake_up(its)
        self._note("survey", shard, 1)
        form = 1 if its.upgrade_steps else FORMAT
        return Survey({"scheduled": len(its.due_ms)}, 0, None, 1, form, next_wake_up, RECEIPT)

    async def acquire(
        self, topic: Topic, shard: ShardId, held: Leadership | None, call: Call, **_: Any
    ) -> Acquired:
        """See SchedulerApi.acquire; there is no other scheduler."""
        its = self._shard(shard)
        async with self._shard_script(its, call):
            next_wake_up = self._next_wake_up(its)
        self._note("acquire", shard, 1)
        return Acquired(Leadership(b"nonce", 1), 1, next_wake_up)

    async def promote(
        self, topic: Topic, shard: ShardId, held: Leadership, call: Call, limit: int | None = None
    ) -> Moved:
        """See SchedulerApi.promote."""
        its = self._shard(shard)
        count = late_ms = 0
        limit = self.settings.promote_batch_count if limit is None else limit
        async with self._shard_script(its, call):
            while its.due_ms and its.due_ms[0] <= self.now_ms() and count < limit:
                late_ms = max(late_ms, self.now_ms() - heapq.heappop(its.due_ms))
                count += 1
            next_wake_up = self._next_wake_up(its)
            await asyncio.sleep(count * TASK_S)
            late_ms += round(count * TASK_S * MS_PER_SECOND)
        self._note("promote", shard, count, late_ms if count else 0)
        return Moved(False, count, late_ms, next_wake_up)

    async def reap(
        self, topic: Topic, shard: ShardId, held: Leadership, call: Call, limit: int | None = None
    ) -> Moved:
        """See SchedulerApi.reap."""
        its = self._shard(shard)
        count = 0
        limit = self.settings.promote_batch_count if limit is None else limit
        async with self._shard_script(its, call):
            while its.expiry_ms and its.expiry_ms[0] <= self.now_ms() and count < limit:
                heapq.heappop(its.expiry_ms)
                count += 1
            next_wake_up = self._next_wake_up(its)
            await asyncio.sleep(count * TASK_S)
        self._note("reap", shard, count)
        return Moved(False, count, None, next_wake_up)

    async def collect(self, topic: Topic, shard: ShardId, call: Call) -> tuple[int, NextWakeUp]:
        """See SchedulerApi.collect."""
        its = self._shard(shard)
        async with self._shard_script(its, call):
            count = min(its.tombstones, self.settings.collect_batch_count)
            its.tombstones -= count
            next_wake_up = self._next_wake_up(its)
            await asyncio.sleep(count * TOMBSTONE_S)
        self._note("collect", shard, count)
        return count, next_wake_up

    async def upgrade(self, topic: Topic, shard: ShardId, store_format: int, call: Call) -> bool:
        """See SchedulerApi.upgrade."""
        its = self._shard(shard)
        async with self._shard_script(its, call):
            its.upgrade_steps -= 1
            await asyncio.sleep(UPGRADE_COUNT * TASK_S)
        self._note("upgrade", shard, UPGRADE_COUNT)
        return not its.upgrade_steps

    async def resign(self, topic: Topic, shard: ShardId, held: Leadership, call: Call) -> bool:
        """See SchedulerApi.resign."""
        async with self._shard_script(self._shard(shard), call):
            return True


class Simulation:
    """A scheduler over a simulated store."""

    def __init__(self, **settings: Any) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.store = SimulatedStore(self.loop, **settings)
        store: Any = self.store
        self.scheduler = Scheduler(store)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The scheduler runs, and has its hints from now on."""
        self._task = self.loop.create_task(self.scheduler.run(self._stop))
        self.loop.settle()
        self.hint(Reset())

    def hint(self, *hints: Hint) -> None:
        """The scheduler hears of it."""
        for hint in hints:
            for listener in self.store.hints.listeners:
                self.loop.call_soon(listener, hint)
        self.loop.settle()

    def create(self, name: str) -> None:
        """A topic, with its hint."""
        self.store.add(name)
        self.hint(TopicHint(name))

    def run_until(self, end_s: float) -> None:
        """Lets time pass."""
        while (timer_s := self.loop.next_timer_s()) is not None and timer_s <= end_s:
            self.loop.move_to(timer_s)
            if self._task is not None and self._task.done():
                self._task.result()
        self.loop.move_to(end_s)

    def probe(self, name: str, until_s: float, every_s: float = 0.05) -> None:
        """A task of the topic is due every so often."""
        number = 0
        start_s = self.loop.time()
        while (at_s := start_s + number * every_s) < until_s:
            self.run_until(at_s)
            self.hint(self.store.enqueue(name))
            number += 1
        self.run_until(until_s)

    def lateness_s(self, name: str) -> list[float]:
        """How late the first task of each promotion of a topic was ready."""
        return [
            ran.late_s
            for ran in self.store.ran
            if ran.script == "promote" and ran.shard.topic == name and ran.count
        ]

    def counts(self, script: str) -> Counter[str]:
        """How often a script ran, by topic."""
        return Counter(ran.shard.topic for ran in self.store.ran if ran.script == script)

    def close(self) -> None:
        """Stops the scheduler."""
        self._stop.set()
        self.store.hung.clear()
        self.run_until(self.loop.time() + 10.0)
        self.loop.close()
        asyncio.set_event_loop(None)


@contextmanager
def simulation(**settings: Any) -> Iterator[Simulation]:
    """A scheduler that has not started."""
    it = Simulation(**settings)
    try:
        yield it
    finally:
        it.close()
