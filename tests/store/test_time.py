"""The store's clock decides, never runs back, and is refused where it cannot be right."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ddq.durations import moment_text
from ddq.store.job_values import Removal
from ddq.task import TaskState
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of, errors, new_task

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
    lease_until = (await queue.survey()).next_wake_up.store_ms
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
    assert moment_text(before) in error.message
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


# What is only late --------------------------------------------------------------------------


class StoppedStore:
    """A store that is stopped while a block makes its calls, and for so long."""

    def __init__(self, queue: Queue, stopped_ms: int) -> None:
        self._queue = queue
        self._stopped_ms = stopped_ms
        self._recording = queue.controlled_store.connection

    async def __aenter__(self) -> None:
        self._recording.under_way.clear()
        self._recording.free.clear()

    async def __aexit__(self, *_: object) -> None:
        await self._recording.under_way.wait()
        self._queue.clock.advance(self._stopped_ms)
        self._recording.free.set()


@pytest.mark.parametrize("stopped_ms", [SKEW_MS + 1, 4_000])
async def test_calls_that_wait_for_a_stopped_store_are_not_taken_for_clock_skew(
    queue: Queue, stopped_ms: int
) -> None:
    """One of them is under way, the others wait behind it."""
    async with StoppedStore(queue, stopped_ms):
        first = asyncio.create_task(queue.add("first"))
        await queue.controlled_store.connection.under_way.wait()
        calls = [first, *(asyncio.create_task(queue.add(f"t{n}")) for n in range(50))]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*calls)
    assert [each.created for each in outcomes] == [True] * len(calls)
    assert mark_ms(queue) == queue.clock.store_ms


async def test_a_store_that_is_ahead_is_refused_although_its_answer_was_late(queue: Queue) -> None:
    """What the round trip does not explain is a difference between the clocks."""
    before = mark_ms(queue)
    queue.clock.set_apart(-2 * SKEW_MS - 1)
    async with StoppedStore(queue, SKEW_MS):
        add = asyncio.create_task(queue.add("a"))
    error = await error_of(add)
    assert error.reason == "CLOCK_UNSAFE"
    assert mark_ms(queue) == before


async def test_an_operators_reset_that_was_late_is_not_taken_for_clock_skew(queue: Queue) -> None:
    await queue.add("a")
    topic = await queue.topic()
    async with StoppedStore(queue, 5 * SKEW_MS):
        reset = asyncio.create_task(queue.store.recovery_api.reset_clock(topic, call()))
    assert [each.after_ms for each in await reset] == [queue.clock.store_ms]


async def test_accepting_a_rollback_does_not_believe_a_clock_that_was_not_compared(
    queue: Queue,
) -> None:
    await queue.add("a")
    before = mark_ms(queue)
    queue.clock.advance(3_600_000)
    await queue.store.recovery_api.accept_rollback(
        await queue.topic(), replace(call(), durable=False)
    )
    assert mark_ms(queue) == before


async def test_a_not_after_of_a_clock_that_was_ahead_is_bounded_at_the_send(queue: Queue) -> None:
    """Else a request that was read by a clock an hour ahead could act an hour later, when the
    store has forgotten that it acted before."""
    settings = queue.store.settings
    wrong_ms = queue.clock.store_ms + 3_600_000 + settings.max_request_age_ms
    await queue.store.jobs.enqueue(queue.name, [new_task("a")], call(not_after_ms=wrong_ms))
    sent = queue.controlled_store.connection.commands[-1]
    argv = sent[3 + int(sent[2]) :]
    assert argv[6] == (
        queue.clock.now_ms() + settings.max_request_age_ms + settings.max_clock_skew_ms
    )


async def test_a_process_whose_machine_was_suspended_reports_no_rollback(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    """The event loop's time stood still for the three hours, and the store has forgotten the name
    of a process that was silent for two."""
    await queue.add("a")
    queue.clock.advance(3 * 3_600_000)
    # The second one finds the mark moved, and removes what was not used for two hours before it.
    for name in ("b", "c"):
        await Queue(open_store_here(), queue.name).add(name)
    assert len([f for f in queue.server.sync.hkeys(queue.key("control")) if f[:2] == b"p:"]) == 2
    await queue.add("d")
