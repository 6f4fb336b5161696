"""The store's clock decides, never runs back, and is refused where it cannot be right."""

from __future__ import annotations

import pytest

from ddq.store.jobstore import Removal
from ddq.task import TaskState
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of, errors

SKEW_MS = 1_000


def mark_ms(queue: Queue) -> int:
    mark = queue.server.sync.hget(queue.key("control"), "mark_ms")
    assert isinstance(mark, bytes)
    return int(mark)


@pytest.mark.parametrize("apart_ms", [SKEW_MS + 1, -SKEW_MS - 1])
async def test_clocks_that_differ_are_refused_before_the_mark_moves(
    queue: Queue, apart_ms: int
) -> None:
    await queue.add("a")
    before = mark_ms(queue)
    # The store jumps ahead, or the caller falls behind: the script sees only the difference.
    queue.clock.advance(3_600_000)
    queue.clock.set_apart(apart_ms)
    error = await error_of(queue.add("b"))
    assert error.reason == "CLOCK_UNSAFE"
    assert mark_ms(queue) == before
    queue.clock.advance(-3_600_000)
    queue.clock.set_apart(0)
    await queue.add("b")
    assert mark_ms(queue) == before


@pytest.mark.parametrize("apart_ms", [SKEW_MS, -SKEW_MS])
async def test_clocks_that_differ_by_the_bound_are_accepted(queue: Queue, apart_ms: int) -> None:
    queue.clock.set_apart(apart_ms)
    assert (await queue.add("a")).due_ms == queue.clock.store_ms


async def test_a_small_step_back_does_not_turn_time_back(queue: Queue) -> None:
    await queue.add("a", delay_ms=500)
    queue.clock.advance(400)
    await queue.survey()
    highest = queue.clock.store_ms
    queue.clock.advance(-SKEW_MS)
    assert (await queue.add("b")).due_ms == highest
    assert mark_ms(queue) == highest
    lease_until = (await queue.survey()).outlook.store_ms
    assert lease_until == highest


async def test_a_lease_does_not_come_back_to_life_by_a_step_back(queue: Queue) -> None:
    await queue.add_leased("a")
    queue.clock.advance(10_000)
    await queue.survey()
    queue.clock.advance(-500)
    assert await queue.reap() == 1


async def test_a_large_step_back_is_refused_until_the_clock_is_right(queue: Queue) -> None:
    await queue.add("a")
    before = mark_ms(queue)
    queue.clock.advance(-SKEW_MS - 1)
    error = await error_of(queue.add("b"))
    assert error.reason == "CLOCK_UNSAFE"
    assert str(before) in error.message
    assert mark_ms(queue) == before
    queue.clock.advance(1)
    assert (await queue.add("b")).due_ms == before


@pytest.mark.parametrize(("late_ms", "reason"), [(0, "OK"), (1, "REQUEST_EXPIRED")])
async def test_a_request_acts_until_its_not_after_and_not_beyond(
    queue: Queue, late_ms: int, reason: str
) -> None:
    await queue.add("a")
    not_after_ms = queue.clock.store_ms + 100
    queue.clock.advance(100 + late_ms)
    outcomes = await queue.store.jobs.remove(
        queue.name, [Removal("a")], call(not_after_ms=not_after_ms)
    )
    assert errors(outcomes) == [reason]
    assert (await queue.state("a") is TaskState.CANCELLED) == (reason == "OK")


async def test_the_shipped_clock_is_the_stores(open_store_here: OpenStoreHere) -> None:
    queue = Queue(open_store_here(real_time=True))
    await queue.create()

    def store_ms() -> int:
        seconds, micros = queue.server.read("TIME")
        return int(seconds) * 1_000 + int(micros) // 1_000

    for i in range(50):
        before_ms = store_ms()
        due_ms = (await queue.add(f"t{i}")).due_ms
        assert before_ms <= due_ms <= store_ms()


async def test_times_are_whole_milliseconds_in_every_index(queue: Queue) -> None:
    await queue.add("a", delay_ms=315_360_000_000)
    score = queue.server.read("ZSCORE", queue.key("tasks"), "a")
    assert int(score) == queue.clock.store_ms + 315_360_000_000
    assert (await queue.get("a")).due_ms == int(score)


async def test_each_transition_notes_its_moment(queue: Queue) -> None:
    await queue.add("a")
    for act in (queue.promote, queue.retrieve, queue.reap, lambda: queue.cancel("a")):
        queue.clock.advance(10_000)
        await act()
        assert (await queue.get("a")).updated_ms == queue.clock.store_ms, act
