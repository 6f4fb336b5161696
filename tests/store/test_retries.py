"""Attempts, backoff and death (G10)."""

from __future__ import annotations

from typing import Any

import pytest

from ddq.config import UNLIMITED_ATTEMPTS
from ddq.task import TaskState
from tests.support.queue import Queue, call

POLICY: dict[str, Any] = {
    "max_attempts": 6,
    "initial_backoff_ms": 1_000,
    "max_backoff_ms": 5_000,
    "multiplier": 2.0,
    "jitter": 0.5,
}
# min(cap, initial * 2^(attempt - 1)), before the jitter.
BASES_MS = (1_000, 2_000, 4_000, 5_000, 5_000)


async def backoffs(queue: Queue, jitter_random: float, *, by_expiry: bool) -> list[int]:
    """Every backoff of a run, until the task is dead."""
    await queue.add("a", **POLICY)
    seen: list[int] = []
    while True:
        lease = await queue.lease("a")
        if by_expiry:
            queue.clock.advance(10_000)
            queue.controlled_store.entropy.dictated = [jitter_random]
            await queue.reap()
            # The rest of the batch drew numbers of its own.
        else:
            queue.controlled_store.entropy.dictated = [jitter_random]
            await queue.nack(lease, error="no")
        task = await queue.get("a")
        if task.state is TaskState.DEAD:
            return seen
        seen.append(task.due_ms - queue.clock.store_ms)
        queue.clock.set(task.due_ms - 1)
        assert await queue.promote() == 0, "sooner than the backoff"
        queue.clock.advance(1)


@pytest.mark.parametrize("by_expiry", [False, True])
@pytest.mark.parametrize(("jitter_random", "factor"), [(0.0, 1.0), (0.5, 1.25), (0.999999, 1.5)])
async def test_backoff_grows_to_the_cap_and_jitter_only_adds(
    queue: Queue, jitter_random: float, factor: float, by_expiry: bool
) -> None:
    seen = await backoffs(queue, jitter_random, by_expiry=by_expiry)
    assert seen == [round(base * factor) for base in BASES_MS]
    assert (await queue.get("a")).attempt == POLICY["max_attempts"]


async def test_a_fraction_of_a_millisecond_is_rounded_up(queue: Queue) -> None:
    lease = await queue.add_leased("a", initial_backoff_ms=3, jitter=0.1)
    queue.controlled_store.entropy.dictated = [0.01]
    assert (await queue.nack(lease)).at_ms == queue.clock.store_ms + 4


async def test_no_backoff_means_at_once(queue: Queue) -> None:
    lease = await queue.add_leased("a", initial_backoff_ms=0, max_backoff_ms=0)
    assert (await queue.nack(lease)).at_ms == queue.clock.store_ms
    assert (await queue.lease("a")).task.attempt == 2


async def test_a_huge_multiplier_ends_at_the_cap(queue: Queue) -> None:
    await queue.add("a", max_attempts=10_000, multiplier=100.0, jitter=0.0)
    for base_ms in (1_000, 100_000, 600_000, 600_000, 600_000):
        retried = await queue.nack(await queue.lease("a"))
        assert retried.at_ms == queue.clock.store_ms + base_ms
        queue.clock.advance(base_ms)


async def test_an_explicit_delay_overrides_the_backoff_and_counts_as_an_attempt(
    queue: Queue,
) -> None:
    lease = await queue.add_leased("a", max_attempts=2)
    assert (await queue.nack(lease, delay_ms=77)).at_ms == queue.clock.store_ms + 77
    queue.clock.advance(77)
    last = await queue.nack(await queue.lease("a"), delay_ms=77, error="again")
    assert (last.state, last.at_ms) == (TaskState.DEAD, 0)
    assert (await queue.get("a")).last_error == "again"


async def test_a_task_with_unlimited_attempts_is_tried_beyond_any_limit(queue: Queue) -> None:
    await queue.add(
        "a", max_attempts=UNLIMITED_ATTEMPTS, initial_backoff_ms=1_000, max_backoff_ms=5_000,
        jitter=0.0,
    )  # fmt: skip
    for attempt, backoff_ms in ((1, 1_000), (2, 2_000)):
        lease = await queue.lease("a")
        assert lease.task.attempt == attempt
        assert (await queue.nack(lease)).at_ms == queue.clock.store_ms + backoff_ms
        queue.clock.advance(backoff_ms)
    # As after so many attempts: the count stands behind state, revision, incarnation and promotion.
    record = queue.server.sync.hget(queue.key("states"), "a")
    assert isinstance(record, bytes)
    many = (20_000).to_bytes(4, "big")
    queue.server.sync.hset(queue.key("states"), "a", record[:22] + many + record[26:])
    lease = await queue.lease("a")
    assert lease.task.attempt == 20_001
    retried = await queue.nack(lease)
    assert (retried.state, retried.at_ms) == (
        TaskState.SCHEDULED, queue.clock.store_ms + 5_000,
    )  # fmt: skip


async def test_the_count_of_unlimited_attempts_ends_where_the_record_does(queue: Queue) -> None:
    # A count that continued would begin again at 0, and so would the backoff.
    await queue.add("a", max_attempts=UNLIMITED_ATTEMPTS)
    await queue.nack(await queue.lease("a"), delay_ms=0)
    record = queue.server.sync.hget(queue.key("states"), "a")
    assert isinstance(record, bytes)
    last = (UNLIMITED_ATTEMPTS - 1).to_bytes(4, "big")
    queue.server.sync.hset(queue.key("states"), "a", record[:22] + last + record[26:])
    assert (await queue.nack(await queue.lease("a"))).state is TaskState.DEAD


async def test_dead_lettering_ends_a_run_at_once_and_keeps_the_payload(queue: Queue) -> None:
    lease = await queue.add_leased("a", payload=b"kept")
    assert (await queue.nack(lease, dead=True, error="poison")).state is TaskState.DEAD
    task = await queue.get("a")
    assert (task.payload, task.last_error, task.attempt) == (b"kept", "poison", 1)
    assert await queue.list_ids(TaskState.DEAD) == ["a"]


async def test_an_expired_lease_leaves_a_note(queue: Queue) -> None:
    await queue.add_leased("a")
    queue.clock.advance(9_999)
    assert await queue.reap() == 0
    queue.clock.advance(1)
    assert await queue.reap() == 1
    assert (await queue.get("a")).last_error == "the lease of attempt 1 expired"


async def test_a_long_error_is_cut_and_half_a_character_does_no_harm(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    await queue.nack(lease, error="x" * 2_047 + "é" * 10)
    assert (await queue.get("a")).last_error == "x" * 2_047 + "�"


async def test_a_batch_of_expired_leases_is_reaped_in_bounded_steps(queue: Queue) -> None:
    batch = queue.store.settings.promote_batch_count
    tasks = [f"t{i:04}" for i in range(2 * batch + 1)]
    for task_id in tasks:
        await queue.add(task_id)
    await queue.promote()
    assert len(await queue.retrieve(1_000)) == len(tasks)
    queue.clock.advance(10_000)
    topic, held = await queue.topic(), await queue.lead()
    counts = []
    while True:
        moved = await queue.store.scheduler_api.reap(topic, queue.shard, held, call())
        counts.append(moved.count)
        if not moved.next_wake_up.reapable:
            break
    assert counts == [batch, batch, 1]
