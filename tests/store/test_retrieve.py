"""Retrieve: order, bounds, repeats."""

from __future__ import annotations

from ddq.store.job_values import Leased
from ddq.task import TaskState
from tests.support.queue import Queue, error_of


def ids(leases: list[Leased]) -> list[str]:
    return [lease.task.id for lease in leases]


async def test_tasks_come_in_the_order_of_their_due_times(queue: Queue) -> None:
    for task_id, delay_ms in (("late", 30), ("early", 10), ("middle", 20)):
        await queue.add(task_id, delay_ms=delay_ms)
    queue.clock.advance(30)
    await queue.promote()
    assert ids(await queue.retrieve(2)) == ["early", "middle"]
    assert ids(await queue.retrieve(2)) == ["late"]


async def test_a_retry_does_not_jump_the_queue(queue: Queue) -> None:
    lease = await queue.add_leased("again")
    await queue.add("first", delay_ms=5)
    await queue.nack(lease, delay_ms=10)
    queue.clock.advance(10)
    await queue.promote()
    assert ids(await queue.retrieve()) == ["first", "again"]


async def test_max_bytes_bounds_a_reply_and_one_larger_task_still_comes(queue: Queue) -> None:
    for i, size in enumerate((400, 400, 400, 5_000, 10)):
        await queue.add(f"t{i}", b"x" * size, delay_ms=i)
    queue.clock.advance(5)
    await queue.promote()
    assert ids(await queue.retrieve(max_bytes=1_000)) == ["t0", "t1"]
    # The oversize one ends the reply before it, and comes alone in the next.
    assert ids(await queue.retrieve(max_bytes=1_000)) == ["t2"]
    assert ids(await queue.retrieve(max_bytes=1_000)) == ["t3"]
    assert ids(await queue.retrieve(max_bytes=1_000)) == ["t4"]
    for i in range(5):
        assert (await queue.get(f"t{i}")).attempt == 1, "nothing was leased and left out"


async def test_max_bytes_counts_headers(queue: Queue) -> None:
    for i in range(3):
        await queue.add(f"t{i}", b"", headers={"k": "v" * 500}, delay_ms=i)
    queue.clock.advance(3)
    await queue.promote()
    assert ids(await queue.retrieve(max_bytes=1_100)) == ["t0", "t1"]


async def test_a_repeat_gives_the_same_leases_with_the_time_that_is_left(queue: Queue) -> None:
    for task_id in "abc":
        await queue.add(task_id)
    await queue.promote()
    first = await queue.retrieve(2, lease_ms=10_000, request_id="r")
    queue.clock.advance(4_000)
    again = await queue.retrieve(2, lease_ms=10_000, request_id="r")
    assert [(lease.task.id, lease.token, lease.expiry_ms) for lease in again] == [
        (lease.task.id, lease.token, lease.expiry_ms) for lease in first
    ]
    assert again[0].task.attempt == 1
    assert again[0].expiry_ms - again[0].receipt.store_ms == 6_000


async def test_a_repeat_leaves_out_what_no_longer_holds(queue: Queue) -> None:
    for task_id in "abcd":
        await queue.add(task_id)
    await queue.promote()
    a, b, c, _ = await queue.retrieve(4, lease_ms=10_000, request_id="r")
    await queue.ack(a)
    await queue.nack(b, delay_ms=0)
    await queue.extend(c, 20_000)
    queue.clock.advance(10_000)
    await queue.lease("b")
    again = await queue.retrieve(4, request_id="r")
    assert ids(again) == ["c"], "settled, superseded and expired ones are not handed out again"
    queue.clock.advance(60_000)
    assert await queue.retrieve(4, request_id="r") == []


async def test_an_empty_reply_is_not_remembered(queue: Queue) -> None:
    assert await queue.retrieve(request_id="r") == []
    await queue.add("a")
    await queue.promote()
    assert ids(await queue.retrieve(request_id="r")) == ["a"]


async def test_asking_for_a_repeat_only_leases_nothing(queue: Queue) -> None:
    await queue.add("a")
    await queue.promote()
    assert await queue.retrieve(0, request_id="r", recall_only=True) == []
    assert await queue.state("a") is TaskState.READY


async def test_two_requests_never_share_a_task(queue: Queue) -> None:
    for task_id in "abcd":
        await queue.add(task_id)
    await queue.promote()
    one = await queue.retrieve(2, request_id="one")
    two = await queue.retrieve(9, request_id="two")
    assert sorted(ids(one) + ids(two)) == ["a", "b", "c", "d"]
    assert await queue.retrieve() == []


async def test_a_cancelled_task_is_never_delivered(queue: Queue) -> None:
    await queue.add("a")
    await queue.promote()
    await queue.cancel("a")
    assert await queue.retrieve() == []
    assert (await error_of(queue.reschedule("a", 0))).reason == "TASK_FINISHED"


async def test_a_retrieve_stops_at_the_bytes_that_a_script_may_read(queue: Queue) -> None:
    payload = b"x" * 1_048_576
    for i in range(9):
        await queue.add(f"t{i}", payload, delay_ms=i)
    queue.clock.advance(9)
    assert await queue.promote() == 9
    assert ids(await queue.retrieve(10)) == ["t0", "t1", "t2"]
