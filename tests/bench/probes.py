"""Tasks that are due every 50 ms, and how late each of them was ready and delivered."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from ddq.store.keys import ShardId
from ddq.store.open import Store
from ddq.task import Durability, TopicSettings
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.bench.deployment import Served
from tests.support.queue import call, new_task
from tests.support.rpc import seconds

TARGET_MS = 250
EVERY_MS = 50
LEAD_MS = 1_500
"""From the enqueue of the probes to the first that is due."""
GRACE_S = 3.0
PROBE = "probe"
BATCH = 1_000


@dataclass(frozen=True)
class Size:
    """How much of everything: at full size, or for a quick look."""

    window_s: float = 20.0
    topics: int = 32
    backlog: int = 10_000
    tombstones: int = 100_000
    idle_topics: int = 10_000
    retrieves: int = 5_000
    hang_s: float = 5.0


QUICK = Size(6.0, 32, 500, 5_000, 1_000, 500, 2.0)


@dataclass(frozen=True)
class Row:
    """What one measurement found; ms, by the store's clock.

    Attributes:
        probes: how many there were.
        unready: of those, how many were never promoted.
        ready_ms, delivered_ms: of the worst probe.
    """

    name: str
    probes: int
    unready: int
    ready_ms: int
    delivered_ms: int

    @property
    def within(self) -> bool:
        """Whether it is within its target."""
        return self.ready_ms <= TARGET_MS and not self.unready


Trouble = Callable[[Served], Awaitable[float | None]]
"""The work beside the probes; returns when the store was back, in seconds since 1970."""


async def create(store: Store, name: str, **settings: Any) -> None:
    """A topic."""
    wanted = TopicSettings(durability=Durability.FAST, **settings)
    await store.topics.create(name, 1, wanted, call())


async def enqueue_probes(store: Store, size: Size) -> list[str]:
    """All of them before anything happens: no producer has to get through meanwhile."""
    names = [f"p{number}" for number in range(round(size.window_s * 1_000 / EVERY_MS))]
    tasks = [
        new_task(name, delay_ms=LEAD_MS + number * EVERY_MS) for number, name in enumerate(names)
    ]
    for at in range(0, len(tasks), BATCH):
        await store.jobs.enqueue(PROBE, tasks[at : at + BATCH], call())
    return names


async def work(queue: Any, topics: list[str]) -> None:
    """A worker that takes and acks what there is."""
    for number in itertools.count():
        try:
            reply = await queue.Retrieve(
                pb.RetrieveRequest(
                    topics=topics, max_tasks=10, wait=seconds(2), request_id=f"r{number}"
                ),
                timeout=5,
            )
            items = [
                pb.BatchAckItem(id=leased.task.id, lease_token=leased.lease_token)
                for leased in reply.tasks
                if leased.task.topic == PROBE
            ]
            if items:
                await queue.BatchAck(pb.BatchAckRequest(topic=PROBE, items=items), timeout=5)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)


async def read_journal(store: Store, since_ms: int) -> list[dict[str, str]]:
    """What happened to the probes' topic since then, oldest first."""
    key = ShardId(PROBE, 0).key("journal")
    deadline_s = asyncio.get_running_loop().time() + 10
    node = await store.router.topology.node_of(key, deadline_s)
    connection = store.router.topology.connect(node)
    try:
        entries: list[Any] = []
        page: list[Any] = []
        after = f"{since_ms}-0"
        while not entries or len(page) == BATCH:
            read: Any = await connection.send([("XRANGE", key, after, "+", "COUNT", BATCH)], 10)
            (page,) = read
            entries += page
            if not page:
                break
            after = "(" + page[-1][0].decode()
    finally:
        await connection.close()
    pairs = ([iter(found)] * 2 for _, found in entries)
    return [
        {name.decode(): value.decode(errors="replace") for name, value in zip(*each, strict=True)}
        for each in pairs
    ]


def worst_ms(
    entries: list[dict[str, str]], op: str, names: list[str], back_s: float | None
) -> tuple[int, int]:
    """How late the worst probe had this happen to it first, and how many never had."""
    # Rounded down like the times in the journal: a promotion in the very millisecond of the return
    # would otherwise count as one before it, with all the time of the stop as its lateness.
    back_ms = 0 if back_s is None else math.floor(back_s * 1_000)
    late_ms: dict[str, int] = {}
    for entry in entries:
        if entry["op"] == op and entry["id"] not in late_ms:
            at_ms, due_ms = int(entry["at_ms"]), int(entry["due_ms"])
            late_ms[entry["id"]] = at_ms - (max(due_ms, back_ms) if at_ms >= back_ms else due_ms)
    missing = sum(name not in late_ms for name in names)
    return max(late_ms.values(), default=0), missing


async def measure(
    name: str,
    served: Served,
    size: Size,
    trouble: Trouble,
    *,
    topics: list[str] | None = None,
    worker: bool = True,
) -> Row:
    """Probes for the length of the window, with the trouble after a quarter of it."""
    since_ms = time.time_ns() // 1_000_000
    names = await enqueue_probes(served.store, size)
    took = asyncio.create_task(work(served.queues[-1], topics or [PROBE])) if worker else None
    await asyncio.sleep(LEAD_MS / 1_000 + size.window_s / 4)
    began_s = time.monotonic()
    back_s = await trouble(served)
    left_s = size.window_s * 3 / 4 - (time.monotonic() - began_s)
    await asyncio.sleep(max(left_s, 0.0) + GRACE_S)
    entries = await read_journal(served.store, since_ms)
    if took is not None:
        took.cancel()
        await asyncio.gather(took, return_exceptions=True)
    ready_ms, unready = worst_ms(entries, "promote", names, back_s)
    delivered_ms, _ = worst_ms(entries, "lease", names, back_s)
    return Row(name, len(names), unready, ready_ms, delivered_ms)


async def nothing(_: Served) -> None:
    """No trouble."""
