"""One topic as hand-worked examples speak of it: short calls, plain values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddq.errors import DdqError
from ddq.store.job_values import (
    Changed,
    Content,
    Continuation,
    Continued,
    Cursor,
    Enqueued,
    Extension,
    Leased,
    Postponement,
    Rejection,
    Removal,
    Removed,
    Settlement,
)
from ddq.store.keys import ShardId
from ddq.store.operator_api import Progress
from ddq.store.records import content_digest
from ddq.store.runner import Call
from ddq.store.scheduler_api import Leadership, Moved, Survey
from ddq.task import (
    NewTask,
    OnConflict,
    Outcome,
    RetryOverrides,
    Schedule,
    Task,
    TaskState,
    Topic,
    TopicSettings,
)
from tests.support.store import ControlledStore, ManualClock, StoreServer

TIMEOUT_S = 60.0


def call(request_id: str = "", *, not_after_ms: int = 0) -> Call:
    """A request with plenty of time."""
    deadline_s = asyncio.get_running_loop().time() + TIMEOUT_S
    return Call(deadline_s, not_after_ms, request_id)


def new_task(
    task_id: str,
    payload: bytes = b"payload",
    *,
    delay_ms: int = 0,
    due_ms: int | None = None,
    on_conflict: OnConflict = OnConflict.FAIL,
    expected_revision: int | None = None,
    headers: Mapping[str, str] | None = None,
    debounce_limit_ms: int = 0,
    **retry: Any,
) -> NewTask:
    """A task; ``retry`` goes into its retry policy."""
    schedule = Schedule(delay_ms) if due_ms is None else Schedule(due_ms, absolute=True)
    return NewTask(
        id=task_id,
        payload=payload,
        headers=headers or {},
        schedule=schedule,
        retry_policy=RetryOverrides(**retry),
        digest=content_digest(payload, repr(schedule).encode(), repr(sorted(retry)).encode()),
        on_conflict=on_conflict,
        expected_revision=expected_revision,
        debounce_limit_ms=debounce_limit_ms,
    )


class Queue:
    """One topic of a ControlledStore."""

    def __init__(self, controlled_store: ControlledStore, name: str = "jobs") -> None:
        self.controlled_store = controlled_store
        self.store = controlled_store.store
        self.name = name
        self.leadership: Leadership | None = None

    @property
    def clock(self) -> ManualClock:
        """The clock of the test."""
        return self.controlled_store.clock

    @property
    def server(self) -> StoreServer:
        """The Valkey behind it."""
        return self.controlled_store.server

    @property
    def shard(self) -> ShardId:
        """The only shard of most topics."""
        return ShardId(self.name, 0)

    def key(self, root: str) -> str:
        """A key of the first shard."""
        return self.shard.key(root)

    # Topic ---------------------------------------------------------------------------------

    async def create(self, shards: int = 1, **settings: Any) -> Topic:
        """Makes the topic with these settings."""
        wanted = TopicSettings(**settings)
        topic, _ = await self.store.topics.create(self.name, shards, wanted, call())
        return topic

    async def topic(self) -> Topic:
        """The topic as the registry has it."""
        topic = await self.store.topics.load(self.name, call())
        assert topic is not None
        return topic

    async def pause(self, *, paused: bool = True) -> None:
        """Pauses or resumes."""
        topic = await self.topic()
        await self.store.topics.update(topic, replace(topic, paused=paused), call())

    # Producing -----------------------------------------------------------------------------

    async def enqueue(self, *tasks: NewTask, request_id: str = "") -> list[Enqueued]:
        """All of them, or the first error."""
        outcomes = await self.store.jobs.enqueue(self.name, tasks, call(request_id))
        return [outcome.unwrap() for outcome in outcomes]

    async def add(self, task_id: str, payload: bytes = b"payload", **options: Any) -> Enqueued:
        """One task."""
        request_id = options.pop("request_id", "")
        (enqueued,) = await self.enqueue(
            new_task(task_id, payload, **options), request_id=request_id
        )
        return enqueued

    async def cancel(self, task_id: str, *, revoke: bool = False, request_id: str = "") -> Removed:
        """Cancels one task."""
        (outcome,) = await self.store.jobs.remove(
            self.name, [Removal(task_id, revoke)], call(request_id)
        )
        return outcome.unwrap()

    async def reschedule(
        self,
        task_id: str,
        delay_ms: int,
        *,
        request_id: str = "r",
        expected: int | None = None,
        absolute: bool = False,
    ) -> Changed:
        """Gives one task another due time."""
        outcome = await self.store.jobs.reschedule(
            self.name, task_id, Schedule(delay_ms, absolute), expected, call(request_id)
        )
        return outcome.unwrap()

    # Consuming -----------------------------------------------------------------------------

    async def retrieve(
        self,
        max_tasks: int = 10,
        *,
        max_bytes: int = 3 * 1024 * 1024,
        lease_ms: int | None = 10_000,
        request_id: str = "",
        recall_only: bool = False,
        shard: int = 0,
    ) -> list[Leased]:
        """Leases from one shard."""
        topic = await self.topic()
        leases, _, _ = await self.store.jobs.retrieve(
            topic,
            shard,
            max_tasks=max_tasks,
            max_bytes=max_bytes,
            lease_ms=lease_ms,
            call=call(request_id),
            recall_only=recall_only,
        )
        return leases

    async def lease(self, task_id: str = "a", *, lease_ms: int = 10_000) -> Leased:
        """Promotes, then leases the one task that is ready."""
        await self.promote()
        (leased,) = await self.retrieve(1, lease_ms=lease_ms)
        assert leased.task.id == task_id
        return leased

    async def ack(self, lease: Leased) -> Changed:
        """Finishes a lease."""
        items = [Settlement(lease.task.id, lease.token)]
        (outcome,) = await self.store.jobs.ack(self.name, items, call())
        return outcome.unwrap()

    async def run_again(
        self,
        lease: Leased,
        delay_ms: int = 1_000,
        *,
        payload: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        absolute: bool = False,
    ) -> Continued:
        """Finishes a lease and makes the next run."""
        content = None
        if payload is not None:
            content = Content(payload, headers or {}, content_digest(payload))
        item = Continuation(lease.task.id, lease.token, Schedule(delay_ms, absolute), content)
        return (await self.store.jobs.run_again(self.name, item, call())).unwrap()

    async def nack(self, lease: Leased, **options: Any) -> Changed:
        """Ends an attempt without success."""
        items = [Rejection(lease.task.id, lease.token, **options)]
        (outcome,) = await self.store.jobs.nack(self.name, items, call())
        return outcome.unwrap()

    async def release(self, lease: Leased) -> Changed:
        """Hands a lease back."""
        items = [Settlement(lease.task.id, lease.token)]
        (outcome,) = await self.store.jobs.release(self.name, items, call())
        return outcome.unwrap()

    async def snooze(self, lease: Leased, delay_ms: int = 1_000) -> Changed:
        """Puts a lease off."""
        items = [Postponement(lease.task.id, lease.token, delay_ms)]
        (outcome,) = await self.store.jobs.snooze(self.name, items, call())
        return outcome.unwrap()

    async def extend(self, lease: Leased, lease_ms: int | None = 10_000) -> Changed:
        """Prolongs a lease."""
        items = [Extension(lease.task.id, lease.token, lease_ms)]
        (outcome,) = await self.store.jobs.extend(self.name, items, call())
        return outcome.unwrap()

    # Looking -------------------------------------------------------------------------------

    async def get(self, task_id: str, *, full: bool = True) -> Task:
        """One task."""
        return (await self.store.jobs.get(self.name, task_id, full=full, call=call())).unwrap()

    async def state(self, task_id: str) -> TaskState:
        """Of one task."""
        return (await self.get(task_id)).state

    async def list_ids(self, state: TaskState, *, page: int = 100) -> list[str]:
        """Ids of every task in a state, page by page."""
        ids: list[str] = []
        cursor: Cursor | None = Cursor()
        while cursor is not None:
            tasks, cursor = await self.store.jobs.list_tasks(
                self.name, state, full=False, limit=page, cursor=cursor, call=call()
            )
            ids += [task.id for task in tasks]
        return ids

    async def survey(self, shard: int = 0) -> Survey:
        """Counters and next_wake_up of a shard."""
        return await self.store.scheduler_api.survey(
            await self.topic(), ShardId(self.name, shard), call()
        )

    # SchedulerApi --------------------------------------------------------------------------------

    async def lead(self, shard: int = 0) -> Leadership:
        """Takes the leadership, or keeps it."""
        acquired = await self.store.scheduler_api.acquire(
            await self.topic(), ShardId(self.name, shard), self.leadership, call()
        )
        assert acquired.leadership is not None, "another scheduler leads"
        self.leadership = acquired.leadership
        return acquired.leadership

    async def promote(self, shard: int = 0) -> int:
        """Moves everything that is due; how many."""
        return await self._move(self.store.scheduler_api.promote, shard)

    async def reap(self, shard: int = 0) -> int:
        """Ends every attempt that has expired; how many."""
        return await self._move(self.store.scheduler_api.reap, shard)

    async def _move(self, step: Callable[..., Any], shard: int) -> int:
        topic = await self.topic()
        total = 0
        while True:
            leadership = self.leadership or await self.lead(shard)
            moved: Moved = await step(topic, ShardId(self.name, shard), leadership, call())
            if moved.deposed:
                self.leadership = None
                continue
            total += moved.count
            due = step == self.store.scheduler_api.promote and moved.next_wake_up.promotable
            expired = step == self.store.scheduler_api.reap and moved.next_wake_up.reapable
            if not due and not expired:
                return total

    async def collect(self) -> int:
        """Forgets one batch."""
        count, _ = await self.store.scheduler_api.collect(await self.topic(), self.shard, call())
        return count

    async def upgrade(self, shard: int = 0) -> bool:
        """One step of an upgrade; whether it was the last one."""
        return await self.store.scheduler_api.upgrade(
            await self.topic(), ShardId(self.name, shard), self.store.topics.store_format, call()
        )

    def forget_confirmed(self) -> None:
        """Forgets the confirmed writes, as a process does that has just started."""
        self.store.topics._runner._ledgers._current = None

    # Operating -----------------------------------------------------------------------------

    async def purge(self, request_id: str = "purge") -> Progress:
        """One call of a purge."""
        return await self.store.operator_api.purge(await self.topic(), call(request_id))

    async def redrive(self, *ids: str, request_id: str = "redrive") -> list[Outcome[int]]:
        """Gives the named dead tasks a new run."""
        return await self.store.operator_api.redrive(await self.topic(), ids, call(request_id))

    async def redrive_all(self, request_id: str = "redrive") -> Progress:
        """Gives all dead tasks a new run."""
        return await self.store.operator_api.redrive_all(await self.topic(), call(request_id))

    async def delete_dead(self, task_id: str, expected: int | None = None) -> int:
        """Ends a dead task as purged."""
        revision, _ = await self.store.operator_api.delete_dead(
            await self.topic(), task_id, expected, call()
        )
        return revision

    async def delete_topic(self) -> Progress:
        """One call of a deletion."""
        return await self.store.operator_api.delete_topic(await self.topic(), call())

    # Common procedures ---------------------------------------------------------------------

    async def add_leased(self, task_id: str = "a", **options: Any) -> Leased:
        """Enqueues a task and leases it."""
        await self.add(task_id, **options)
        return await self.lease(task_id)

    async def add_dead(self, *task_ids: str) -> None:
        """Tasks that died."""
        for task_id in task_ids:
            await self.nack(await self.add_leased(task_id), dead=True, error="broken")


async def error_of(awaitable: Any) -> DdqError:
    """The DdqError that it raises."""
    try:
        result = await awaitable
    except DdqError as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


def errors(outcomes: Sequence[Outcome[Any]]) -> list[str]:
    """The reasons of a batch, "OK" for what went well."""
    return ["OK" if outcome.error is None else outcome.error.reason for outcome in outcomes]
