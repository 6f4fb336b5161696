"""Listings: every page, every state, and never more work than a page is worth."""

from __future__ import annotations

import pytest

from ddq.store.job_values import Cursor
from ddq.task import TaskState
from tests.support.queue import Queue, call


async def test_each_state_lists_its_own(queue: Queue) -> None:
    await queue.add_dead("dead")
    await queue.ack(await queue.add_leased("succeeded"))
    await queue.add("purged")
    await queue.purge("none yet")
    await queue.add("cancelled")
    await queue.cancel("cancelled")
    await queue.add_leased("leased")
    await queue.add("ready")
    await queue.promote()
    await queue.add("scheduled", delay_ms=1)
    await queue.add_dead("again")
    await queue.redrive("again")
    assert {state.name: await queue.list_ids(state) for state in TaskState} == {
        "SCHEDULED": ["again", "scheduled"],
        "READY": ["ready"],
        "LEASED": ["leased"],
        "SUCCEEDED": ["succeeded"],
        "DEAD": [],
        "CANCELLED": ["cancelled"],
        "PURGED": ["dead", "purged"],
    }


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("page", [1, 7, 100])
async def test_pages_leave_nothing_out_and_repeat_nothing(
    queue: Queue, page: int, shards: int
) -> None:
    wide = Queue(queue.controlled_store, "wide")
    await wide.create(shards=shards)
    wanted = {f"t{i:02}" for i in range(30)}
    for task_id in wanted:
        await wide.add(task_id, delay_ms=5 if task_id < "t20" else 6)
    found = await wide.list_ids(TaskState.SCHEDULED, page=page)
    assert sorted(found) == sorted(wanted)


async def test_a_listing_goes_on_where_its_last_entry_has_moved_away(queue: Queue) -> None:
    for i in range(6):
        await queue.add(f"t{i}", delay_ms=i)
    tasks, cursor = await queue.store.jobs.list_tasks(
        queue.name, TaskState.SCHEDULED, full=False, limit=3, cursor=Cursor(), call=call()
    )
    await queue.cancel("t2")
    assert cursor is not None
    rest, _ = await queue.store.jobs.list_tasks(
        queue.name, TaskState.SCHEDULED, full=False, limit=9, cursor=cursor, call=call()
    )
    assert [task.id for task in (*tasks, *rest)] == [f"t{i}" for i in range(6)]


async def test_full_pages_are_bounded_by_bytes(queue: Queue) -> None:
    for i in range(5):
        await queue.add(f"t{i}", b"x" * 1_048_576, delay_ms=i)
    seen, cursor = [], Cursor()
    while True:
        tasks, after = await queue.store.jobs.list_tasks(
            queue.name, TaskState.SCHEDULED, full=True, limit=100, cursor=cursor, call=call()
        )
        assert sum(len(task.payload or b"") for task in tasks) <= 3 * 1_048_576
        seen += [task.id for task in tasks]
        if after is None:
            break
        cursor = after
    assert seen == [f"t{i}" for i in range(5)]


async def test_a_rare_state_is_not_searched_for_among_all_tombstones(queue: Queue) -> None:
    for i in range(500):
        await queue.add(f"t{i:03}")
    await queue.promote()
    await queue.add("cancelled", delay_ms=1)
    for lease in await queue.retrieve(500):
        await queue.ack(lease)
    queue.clock.advance(1)
    await queue.cancel("cancelled")
    before = len(queue.controlled_store.connection.commands)
    tasks, cursor = await queue.store.jobs.list_tasks(
        queue.name, TaskState.CANCELLED, full=False, limit=10, cursor=Cursor(), call=call()
    )
    assert len(queue.controlled_store.connection.commands) - before <= 3
    assert tasks == []
    assert cursor is not None, "a page may be short and still not the last"
    assert await queue.list_ids(TaskState.CANCELLED, page=100) == ["cancelled"]
