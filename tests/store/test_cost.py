"""No operation is O(tasks): what a script issues is the same at 10^3 and 10^5 pending tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ddq.config import Settings
from ddq.store.job_values import (
    Cursor,
    Extension,
    Leased,
    Postponement,
    Rejection,
    Removal,
    Settlement,
)
from ddq.task import OnConflict, TaskState
from tests.support.queue import Queue, call, new_task
from tests.support.store import ControlledStore, StoreServer, needs_waitaof

FAR_MS = 100_000_000
FEW, MANY = 1_000, 100_000


class Session:
    """The operations of one measurement, on ids of its own."""

    def __init__(self, queue: Queue, name: str) -> None:
        self.queue = queue
        self.name = name
        self.leases: list[Leased] = []

    def ids(self, kind: str, count: int = 10) -> list[str]:
        return [f"{self.name}-{kind}-{i}" for i in range(count)]

    async def enqueue(self) -> None:
        tasks = [new_task(task_id, delay_ms=FAR_MS) for task_id in self.ids("far")]
        await self.queue.enqueue(*tasks)

    async def enqueue_due(self) -> None:
        # A retry lies far away, so that the next measurement finds what this one found.
        later: dict[str, Any] = {"initial_backoff_ms": FAR_MS, "max_backoff_ms": FAR_MS}
        tasks = [new_task(task_id, **later) for task_id in self.ids("due", 40)]
        await self.queue.enqueue(*tasks)

    async def repeat_enqueue(self) -> None:
        await self.queue.enqueue(
            *(new_task(task_id, delay_ms=FAR_MS) for task_id in self.ids("far"))
        )

    async def replace(self) -> None:
        await self.queue.add(
            self.ids("far")[9],
            b"other",
            delay_ms=FAR_MS,
            on_conflict=OnConflict.REPLACE_IF_SCHEDULED,
            request_id=self.name,
        )

    async def promote(self) -> None:
        assert await self.queue.promote() >= 40

    async def retrieve(self) -> None:
        self.leases = await self.queue.retrieve(32, request_id=self.name)
        assert len(self.leases) == 32

    async def repeat_retrieve(self) -> None:
        assert len(await self.queue.retrieve(32, request_id=self.name)) == 32

    async def extend(self) -> None:
        await self._settle("extend", Extension, self.leases)

    async def ack(self) -> None:
        await self._settle("ack", Settlement, self.leases[:8])

    async def nack(self) -> None:
        await self._settle("nack", Rejection, self.leases[8:16], delay_ms=FAR_MS)

    async def dead_letter(self) -> None:
        await self._settle("nack", Rejection, self.leases[16:20], dead=True)

    async def release(self) -> None:
        await self._settle("release", Settlement, self.leases[20:24])

    async def snooze(self) -> None:
        await self._settle("snooze", Postponement, self.leases[24:26], delay_ms=FAR_MS)

    async def run_again(self) -> None:
        for lease in self.leases[26:28]:
            await self.queue.run_again(lease, FAR_MS)

    async def reap(self) -> None:
        self.queue.clock.advance(30_000)
        assert await self.queue.reap() == 4

    async def _settle(self, name: str, item: Any, leases: list[Leased], **options: Any) -> None:
        items = [item(lease.task.id, lease.token, **options) for lease in leases]
        outcomes = await getattr(self.queue.store.jobs, name)(self.queue.name, items, call())
        assert all(outcome.error is None for outcome in outcomes)

    async def redrive(self) -> None:
        assert (await self.queue.redrive_all(self.name)).count == 4

    async def cancel(self) -> None:
        removals = [Removal(task_id) for task_id in self.ids("far")[:5]]
        outcomes = await self.queue.store.jobs.remove(self.queue.name, removals, call())
        assert all(outcome.error is None for outcome in outcomes)

    async def reschedule(self) -> None:
        await self.queue.reschedule(self.ids("far")[6], FAR_MS, request_id=self.name)

    async def get(self) -> None:
        await self.queue.get(self.ids("far")[7])

    async def list(self) -> None:
        tasks, cursor = await self.queue.store.jobs.list_tasks(
            self.queue.name, TaskState.SCHEDULED, full=False, limit=50, cursor=Cursor(), call=call()
        )
        assert len(tasks) == 50
        assert cursor is not None

    async def list_behind(self) -> None:
        cursor = Cursor(0, str(self.queue.clock.store_ms + FAR_MS // 2), b"x")
        tasks, _ = await self.queue.store.jobs.list_tasks(
            self.queue.name, TaskState.SCHEDULED, full=False, limit=50, cursor=cursor, call=call()
        )
        assert len(tasks) == 50

    async def stats(self) -> None:
        await self.queue.survey()

    async def acquire(self) -> None:
        await self.queue.lead()

    async def collect(self) -> None:
        await self.queue.collect()


STEPS = (
    Session.enqueue, Session.enqueue_due, Session.repeat_enqueue, Session.replace,
    Session.promote, Session.retrieve, Session.repeat_retrieve, Session.extend, Session.ack,
    Session.nack, Session.dead_letter, Session.release, Session.snooze,
    Session.run_again, Session.reap,
    Session.redrive,
    Session.cancel, Session.reschedule, Session.get, Session.list, Session.list_behind,
    Session.stats, Session.acquire, Session.collect,
)  # fmt: skip


async def fill(queue: Queue, state: str, start: int, end: int) -> None:
    """Tasks ``start`` to ``end``, all in one state."""
    for first in range(start, end, 1_000):
        ids = [f"{state}{i}" for i in range(first, min(first + 1_000, end))]
        delay_ms = FAR_MS if state == "scheduled" else 0
        await queue.enqueue(*(new_task(task_id, b"", delay_ms=delay_ms) for task_id in ids))
        if state == "scheduled":
            continue
        await queue.promote()
        if state == "ready":
            continue
        leases = await queue.retrieve(len(ids), lease_ms=FAR_MS)
        items = [Rejection(lease.task.id, lease.token, dead=True) for lease in leases]
        await queue.store.jobs.nack(queue.name, items, call())


async def costs(queue: Queue, name: str) -> dict[str, dict[str, int]]:
    """The commands that each operation makes the store run."""
    session = Session(queue, name)
    steps: list[Callable[[Session], Awaitable[None]]] = list(STEPS)
    found = {}
    for step in steps:
        queue.server.reset_stats()
        await step(session)
        found[step.__name__] = {
            command: count
            for command, count in queue.server.commandstats().items()
            if not command.startswith(("info", "config", "client", "hello"))
        }
    return found


@pytest.mark.timeout(300)
async def test_commands_issued_do_not_grow_with_the_number_of_pending_tasks(
    queue: Queue,
) -> None:
    await fill(queue, "scheduled", 0, FEW)
    # Once for the script cache: the first use sends the text.
    await costs(queue, "warm")
    few = await costs(queue, "few")
    await fill(queue, "scheduled", FEW, MANY)
    many = await costs(queue, "many")
    assert few == many
    assert few["enqueue"]["zadd"] == 1, (
        "the measurement sees what scripts issue, once for all tasks"
    )
    assert (await queue.survey()).counts["scheduled"] >= MANY


@pytest.mark.parametrize("state", ["ready", "dead"])
async def test_a_long_backlog_costs_its_operations_nothing(queue: Queue, state: str) -> None:
    """A script each for what touches that backlog, at 10 and at 3,000."""

    async def measure() -> dict[str, int]:
        queue.server.reset_stats()
        if state == "ready":
            (lease,) = await queue.retrieve(1)
            await queue.release(lease)
        else:
            topic = await queue.topic()
            tasks, _ = await queue.store.jobs.list_tasks(
                queue.name, TaskState.DEAD, full=False, limit=5, cursor=Cursor(), call=call()
            )
            assert len(tasks) == 5
            await queue.store.operator_api.redrive(topic, ["dead3"], call("measure"))
        await queue.survey()
        return {
            command: count
            for command, count in queue.server.commandstats().items()
            if not command.startswith(("info", "config"))
        }

    await fill(queue, state, 0, 10)
    await measure()
    few = await measure()
    await fill(queue, state, 10, 3_000)
    assert await measure() == few


@needs_waitaof
async def test_requests_that_wait_together_share_a_barrier(store_server: StoreServer) -> None:
    """Group commit is real: the barriers are far fewer than the replies that waited for them."""
    settings = Settings(fsync=True)
    controlled = ControlledStore(store_server, settings)
    queue = Queue(controlled)
    try:
        await queue.create(fsync=True)
        store_server.reset_stats()
        replies = 400
        await asyncio.gather(
            *(queue.enqueue(new_task(f"t{n}", delay_ms=FAR_MS)) for n in range(replies))
        )
        barriers = store_server.commandstats().get("waitaof", 0)
        assert 1 <= barriers <= replies / 20
    finally:
        await controlled.close()
