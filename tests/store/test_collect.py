"""Tombstones and request records: kept long enough, then forgotten, a bounded number a call."""

from __future__ import annotations

import pytest

from ddq.config import Settings
from ddq.task import OnConflict, Schedule, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of

RETENTION_MS = 3_600_000


async def test_a_tombstone_is_kept_for_the_retention_and_no_longer(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("a"))
    queue.clock.advance(RETENTION_MS - 1)
    assert await queue.collect() == 0
    assert await queue.state("a") is TaskState.SUCCEEDED
    assert (await error_of(queue.cancel("a"))).reason == "TASK_FINISHED"
    queue.clock.advance(1)
    assert (await queue.survey()).next_wake_up.collect_ms == queue.clock.store_ms
    assert await queue.collect() == 1
    assert (await error_of(queue.get("a"))).reason == "TASK_NOT_FOUND"
    assert (await queue.survey()).counts["succeeded"] == 1
    assert (await queue.add("a", b"other")).created


async def test_a_dead_task_is_kept_until_an_operator_decides(queue: Queue) -> None:
    await queue.add_dead("a")
    queue.clock.advance(100 * RETENTION_MS)
    assert await queue.collect() == 0
    assert await queue.state("a") is TaskState.DEAD


async def test_collection_goes_in_bounded_steps(open_store_here: OpenStoreHere) -> None:
    queue = Queue(open_store_here(settings=Settings(collect_batch_count=3)))
    await queue.create()
    for i in range(7):
        await queue.add(f"t{i}")
        await queue.cancel(f"t{i}")
    queue.clock.advance(RETENTION_MS)
    assert [await queue.collect() for _ in range(4)] == [3, 3, 1, 0]
    assert_all_conserved(queue.server.sync)


async def test_a_request_record_outlives_the_request(queue: Queue) -> None:
    await queue.add("a", delay_ms=9_000_000)
    not_after_ms = queue.clock.store_ms + 60_000

    async def reschedule(delay_ms: int, request_id: str) -> int:
        outcome = await queue.store.jobs.reschedule(
            queue.name,
            "a",
            Schedule(delay_ms),
            None,
            call(request_id, not_after_ms=not_after_ms),
        )
        return outcome.unwrap().at_ms

    first = await reschedule(9_000_001, "one")
    await queue.reschedule("a", 9_000_002, request_id="two")
    # The last moment at which it may take effect, by a clock that is off by the skew.
    queue.clock.set(not_after_ms)
    queue.clock.set_apart(1_000)
    assert await queue.collect() == 1, "that of the second, which had no not_after"
    assert await reschedule(9_000_001, "one") == first
    queue.clock.set_apart(0)
    queue.clock.advance(2_000)
    assert await queue.collect() == 1
    assert queue.server.sync.hlen(queue.key("requests")) == 0


async def test_the_record_of_a_retrieve_lives_as_long_as_its_leases(queue: Queue) -> None:
    await queue.add("a")
    await queue.promote()
    await queue.retrieve(lease_ms=50_000, request_id="r")
    queue.clock.advance(49_999)
    assert await queue.collect() == 0
    assert len(await queue.retrieve(request_id="r")) == 1
    queue.clock.advance(1)
    assert await queue.collect() == 1


@pytest.mark.parametrize("ended_ago_ms", [0, RETENTION_MS])
async def test_a_replaced_cancel_is_remembered_as_long_as_its_tombstone_would(
    queue: Queue, ended_ago_ms: int
) -> None:
    await queue.add("a")
    await queue.cancel("a", request_id="c")
    await queue.add(
        "a", b"new", delay_ms=9_000_000, on_conflict=OnConflict.REPLACE_IF_FINISHED, request_id="r"
    )
    queue.clock.advance(ended_ago_ms)
    await queue.collect()
    assert (await queue.cancel("a", request_id="c")).already == (ended_ago_ms == 0)
