"""Who may promote and reap (G3, G12): checked in the script, by nonce and epoch."""

from __future__ import annotations

from ddq.store.scheduler_api import Leadership
from ddq.task import TaskState
from tests.support.queue import Queue, call


async def acquire(queue: Queue, held: Leadership | None = None) -> Leadership | None:
    topic = await queue.topic()
    acquired = await queue.store.scheduler_api.acquire(topic, queue.shard, held, call())
    return acquired.leadership


async def test_each_leadership_has_a_greater_epoch_and_a_fresh_nonce(queue: Queue) -> None:
    seen = []
    for _ in range(3):
        leadership = await acquire(queue)
        assert leadership is not None
        seen.append(leadership)
        queue.clock.advance(queue.store.settings.leader_lease_ms)
    assert [leadership.epoch for leadership in seen] == [1, 2, 3]
    assert len({leadership.nonce for leadership in seen}) == 3


async def test_a_leadership_is_left_alone_until_the_moment_it_lapses(queue: Queue) -> None:
    await acquire(queue)
    queue.clock.advance(queue.store.settings.leader_lease_ms - 1)
    assert await acquire(queue) is None
    queue.clock.advance(1)
    assert await acquire(queue) is not None


async def test_a_leader_stays_leader_by_asking_or_by_working(queue: Queue) -> None:
    lease_ms = queue.store.settings.leader_lease_ms
    held = await acquire(queue)
    assert held is not None
    topic = await queue.topic()
    for step in (queue.store.scheduler_api.promote, queue.store.scheduler_api.reap):
        queue.clock.advance(lease_ms)
        assert not (await step(topic, queue.shard, held, call())).deposed
        queue.clock.advance(lease_ms - 1)
        assert await acquire(queue) is None, step.__name__
    queue.clock.advance(lease_ms - 1)
    assert await acquire(queue, held) == held
    queue.clock.advance(lease_ms - 1)
    assert await acquire(queue) is None


async def test_a_deposed_scheduler_moves_nothing(queue: Queue) -> None:
    await queue.add_leased("leased")
    await queue.add("due", delay_ms=1)
    old = await queue.lead()
    queue.clock.advance(queue.store.settings.leader_lease_ms + 10_000)
    new = await acquire(queue)
    assert new is not None
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api
    almost = (
        old,
        Leadership(old.nonce, new.epoch),
        Leadership(new.nonce, old.epoch),
        Leadership(b"", new.epoch),
    )
    until = queue.server.sync.hget(queue.key("control"), "leader_until_ms")
    for held in almost:
        for step in (scheduler_api.promote, scheduler_api.reap):
            moved = await step(topic, queue.shard, held, call())
            assert (moved.deposed, moved.count) == (True, 0)
    assert queue.server.sync.hget(queue.key("control"), "leader_until_ms") == until
    assert await queue.state("due") is TaskState.SCHEDULED
    assert await queue.state("leased") is TaskState.LEASED
    assert (await scheduler_api.promote(topic, queue.shard, new, call())).count == 1
    assert (await scheduler_api.reap(topic, queue.shard, new, call())).count == 1


async def test_a_lapsed_leadership_holds_until_another_takes_it(queue: Queue) -> None:
    """No safety rests on the time: only who took it in between deposes."""
    held = await queue.lead()
    await queue.add("a")
    queue.clock.advance(10 * queue.store.settings.leader_lease_ms)
    moved = await queue.store.scheduler_api.promote(await queue.topic(), queue.shard, held, call())
    assert (moved.deposed, moved.count) == (False, 1)


async def test_a_leader_that_resigned_is_deposed_and_the_next_leads_at_once(queue: Queue) -> None:
    held = await queue.lead()
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api
    await queue.add("a")
    assert await scheduler_api.resign(topic, queue.shard, held, call())
    assert (await scheduler_api.promote(topic, queue.shard, held, call())).deposed
    assert not await scheduler_api.resign(topic, queue.shard, held, call())
    after = await acquire(queue)
    assert after is not None
    assert after.epoch == held.epoch + 1


async def test_only_a_challenger_of_higher_rank_takes_it_from_a_living_leader(
    queue: Queue,
) -> None:
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api

    async def epoch(rank: int, *, challenge: bool = True) -> int | None:
        acquired = await scheduler_api.acquire(
            topic, queue.shard, None, call(), rank=rank, challenge=challenge
        )
        return None if acquired.leadership is None else acquired.leadership.epoch

    greatest = 2**32 - 1
    assert await epoch(7, challenge=False) == 1
    assert [await epoch(6), await epoch(7), await epoch(8, challenge=False)] == [None] * 3
    assert [await epoch(8), await epoch(7), await epoch(greatest)] == [2, None, 3]
    queue.clock.advance(queue.store.settings.leader_lease_ms)
    assert await epoch(0, challenge=False) == 4, "its time is over, whatever its rank was"
    # A value written by hand is not a rank, and keeps no scheduler out.
    for nonsense in ("x", "nan", "-1"):
        queue.server.sync.hset(queue.key("control"), "leader_rank", nonsense)
        assert await epoch(0) == (5 if nonsense == "-1" else None)
    assert await epoch(1) == 6


async def test_a_promotion_says_how_late_its_first_task_was(queue: Queue) -> None:
    held = await queue.lead()
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api

    async def late_ms() -> int | None:
        return (await scheduler_api.promote(topic, queue.shard, held, call())).late_ms

    assert await late_ms() is None
    await queue.add("b", delay_ms=20)
    await queue.add("a", delay_ms=10)
    queue.clock.advance(50)
    assert await late_ms() == 40
    assert await late_ms() is None
    assert (await scheduler_api.reap(topic, queue.shard, held, call())).late_ms is None


async def test_a_shard_without_a_leader_refuses_an_empty_nonce(queue: Queue) -> None:
    await queue.add("a")
    moved = await queue.store.scheduler_api.promote(
        await queue.topic(), queue.shard, Leadership(b"", 0), call()
    )
    assert (moved.deposed, moved.count) == (True, 0)


async def test_each_promotion_of_a_task_has_its_number(queue: Queue) -> None:
    await queue.add("a")
    for number in (1, 2, 3):
        lease = await queue.lease("a")
        assert lease.task.promotion == number
        await queue.nack(lease, delay_ms=0)


async def test_promotion_stops_at_its_batch_and_says_that_more_is_due(queue: Queue) -> None:
    batch = queue.store.settings.promote_batch_count
    for i in range(batch + 1):
        await queue.add(f"t{i:04}")
    held = await queue.lead()
    topic, scheduler_api = await queue.topic(), queue.store.scheduler_api
    first = await scheduler_api.promote(topic, queue.shard, held, call())
    assert (first.count, first.next_wake_up.promotable) == (batch, True)
    second = await scheduler_api.promote(topic, queue.shard, held, call())
    assert (second.count, second.next_wake_up.promotable) == (1, False)
