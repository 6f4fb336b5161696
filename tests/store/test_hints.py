"""Who is to be woken, and for when. Nothing but lateness rests on it, so nothing else shows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ddq.store.hints import DueHint, FreeHint, Hint, ReadyHint, parse_hint
from ddq.store.job_values import Rejection
from tests.support.queue import Queue, call, new_task

Published = Callable[[], list[Hint]]
LEASE_MS = 10_000


@pytest.fixture
def published(queue: Queue) -> Iterator[Published]:
    """Returns the hints that were published since its last call."""
    with queue.server.sync.pubsub() as listener:  # type: ignore[no-untyped-call]
        listener.subscribe("ddq:hints")
        listener.get_message(timeout=5)

        def read() -> list[Hint]:
            # A marker behind it all: what was published before it has come when it comes.
            queue.server.sync.publish("ddq:hints", "end")
            hints: list[Hint] = []
            while (message := listener.get_message(timeout=5)) is not None:
                if message["data"] == b"end":
                    return hints
                hint = parse_hint(message["data"])
                assert hint is not None, message
                hints.append(hint)
            raise AssertionError("the channel fell silent")

        yield read


async def test_only_an_earlier_due_time_is_published(queue: Queue, published: Published) -> None:
    await queue.create()
    published()
    now_ms = queue.clock.store_ms
    for delay_ms, expected in ((500, [500]), (900, []), (500, []), (499, [499])):
        await queue.add(f"t{delay_ms}{expected}", delay_ms=delay_ms)
        assert published() == [DueHint(queue.shard, now_ms + ms) for ms in expected], delay_ms


async def test_the_earliest_of_a_batch_is_published(queue: Queue, published: Published) -> None:
    await queue.create()
    published()
    await queue.enqueue(*(new_task(f"t{ms}", delay_ms=ms) for ms in (700, 300, 500)))
    assert published() == [DueHint(queue.shard, queue.clock.store_ms + 300)]


async def test_a_promotion_publishes_how_many_are_ready(queue: Queue, published: Published) -> None:
    await queue.add("a")
    await queue.add("b")
    published()
    await queue.promote()
    assert published() == [ReadyHint(queue.shard, 2)]
    await queue.promote()
    assert published() == []


async def test_the_first_expiry_is_published(queue: Queue, published: Published) -> None:
    await queue.add("a")
    await queue.add("b")
    await queue.promote()
    published()
    await queue.retrieve(1, lease_ms=LEASE_MS)
    assert published() == [DueHint(queue.shard, queue.clock.store_ms + LEASE_MS)]
    await queue.retrieve(1, lease_ms=LEASE_MS + 1)
    assert published() == [], "it expires after the other"


async def test_a_released_task_is_published_as_ready(queue: Queue, published: Published) -> None:
    lease = await queue.add_leased("a")
    published()
    await queue.release(lease)
    assert published() == [ReadyHint(queue.shard, 1)]
    await queue.release(lease)
    assert published() == [], "a repeat hands nothing back"


async def _nack(queue: Queue) -> None:
    lease = await queue.lease("a")
    await queue.nack(lease, delay_ms=70)


async def _snooze(queue: Queue) -> None:
    await queue.snooze(await queue.lease("a"), 70)


async def _run_again(queue: Queue) -> None:
    await queue.run_again(await queue.lease("a"), 70)


async def _reschedule(queue: Queue) -> None:
    await queue.promote()
    await queue.reschedule("a", 70)


async def _redrive(queue: Queue) -> None:
    await queue.nack(await queue.lease("a"), dead=True)
    await queue.redrive("a")


async def _redrive_all(queue: Queue) -> None:
    await queue.nack(await queue.lease("a"), dead=True)
    await queue.redrive_all()


@pytest.mark.parametrize(
    ("act", "delay_ms"),
    [
        (_nack, 70),
        (_snooze, 70),
        (_run_again, 70),
        (_reschedule, 70),
        (_redrive, 0),
        (_redrive_all, 0),
    ],
)
async def test_a_task_that_comes_back_earlier_than_the_others_is_published(
    queue: Queue, published: Published, act: Callable[[Queue], Awaitable[Any]], delay_ms: int
) -> None:
    await queue.add("later", delay_ms=90_000)
    await queue.add("a")
    published()
    await act(queue)
    assert published()[-1] == DueHint(queue.shard, queue.clock.store_ms + delay_ms)


async def test_the_earliest_of_a_batch_of_nacks_is_published(
    queue: Queue, published: Published
) -> None:
    leases = [await queue.add_leased(task_id) for task_id in "abc"]
    published()
    rejections = [
        Rejection(lease.task.id, lease.token, delay_ms)
        for lease, delay_ms in zip(leases, (700, 300, 500), strict=True)
    ]
    await queue.store.jobs.nack(queue.name, rejections, call())
    assert published() == [DueHint(queue.shard, queue.clock.store_ms + 300)]


async def test_a_due_time_that_moves_behind_others_is_not_published(
    queue: Queue, published: Published
) -> None:
    await queue.add("first", delay_ms=50)
    await queue.add("a", delay_ms=60)
    published()
    await queue.reschedule("a", 70)
    assert published() == []


async def test_resuming_publishes_the_next_due_time_and_the_ready_tasks(
    queue: Queue, published: Published
) -> None:
    await queue.add("ready")
    await queue.promote()
    await queue.add("due", delay_ms=50)
    await queue.pause()
    published()
    await queue.pause(paused=False)
    assert published() == [
        DueHint(queue.shard, queue.clock.store_ms + 50),
        ReadyHint(queue.shard, 1),
    ]


async def test_while_paused_nothing_is_next_but_expiries(queue: Queue) -> None:
    await queue.add_leased("a")
    await queue.add("b")
    await queue.pause()
    next_wake_up = (await queue.survey()).next_wake_up
    assert (next_wake_up.due_ms, next_wake_up.expiry_ms) == (None, queue.clock.store_ms + LEASE_MS)


async def test_the_earlier_of_two_collections_is_next(queue: Queue) -> None:
    await queue.add("a", delay_ms=90_000)
    await queue.reschedule("a", 80_000, request_id="r")
    record_ms = (await queue.survey()).next_wake_up.collect_ms
    await queue.cancel("a")
    assert (await queue.survey()).next_wake_up.collect_ms == record_ms, "the tombstone stays longer"
    assert record_ms is not None
    queue.clock.advance(record_ms - queue.clock.store_ms)
    await queue.collect()
    tombstone_ms = (await queue.survey()).next_wake_up.collect_ms
    assert tombstone_ms is not None
    assert tombstone_ms > record_ms


async def test_the_oldest_ready_task_is_reported_and_not_the_oldest_of_all(queue: Queue) -> None:
    await queue.add("ready", delay_ms=10)
    queue.clock.advance(10)
    await queue.promote()
    ready_ms = queue.clock.store_ms
    await queue.add("later", delay_ms=500)
    assert (await queue.survey()).oldest_ready_due_ms == ready_ms
    await queue.cancel("ready")
    assert (await queue.survey()).oldest_ready_due_ms is None


async def test_a_leader_that_resigns_publishes_the_next_wake_up(
    queue: Queue, published: Published
) -> None:
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api

    async def next_ms() -> list[Hint]:
        held = await queue.lead()
        queue.leadership = None
        published()
        assert await scheduler_api.resign(topic, queue.shard, held, call())
        assert not await scheduler_api.resign(topic, queue.shard, held, call())
        return published()

    nothing = FreeHint(queue.shard, 2**53 - 1)
    assert await next_ms() == [nothing], "others wait no longer for its lease"
    now_ms = queue.clock.store_ms
    await queue.add("leased")
    await queue.lease("leased", lease_ms=700)
    assert await next_ms() == [FreeHint(queue.shard, now_ms + 700)]
    await queue.add("later", delay_ms=900)
    assert await next_ms() == [FreeHint(queue.shard, now_ms + 700)]
    await queue.add("sooner", delay_ms=500)
    assert await next_ms() == [FreeHint(queue.shard, now_ms + 500)]
