"""The bell: as many are woken as there are tasks, and no ring is lost with who leaves."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from ddq.server.notifier import ROUND_STEP_COUNT, ROUND_STEP_S, Ear, ReadyBell
from ddq.store.hints import DueHint, ReadyHint, Reset, TopicHint
from ddq.store.keys import ShardId
from tests.support.hints import NoHints

MAIL, MAIL_1, JOBS = ShardId("mail", 0), ShardId("mail", 1), ShardId("jobs", 0)


def ringing(*ears: Ear) -> list[bool]:
    return [ear.ringing for ear in ears]


async def test_as_many_are_woken_as_there_are_tasks_the_longest_waiting_first() -> None:
    bell = ReadyBell(NoHints())
    with (
        bell.listening(["mail"]) as one,
        bell.listening(["jobs", "mail"]) as two,
        bell.listening(["mail"]) as three,
        bell.listening(["jobs"]) as other,
    ):
        bell.on_hint(ReadyHint(MAIL, 2))
        assert ringing(one, two, three, other) == [True, True, False, False]
        assert two.look() == {MAIL}
        # Who was woken and has not looked yet is not woken twice for another task.
        bell.on_hint(ReadyHint(MAIL, 1))
        assert ringing(one, two, three) == [True, True, False]


async def test_who_leaves_without_looking_passes_the_ring_on() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["mail"]) as second:
        with bell.listening(["mail"]) as first:
            bell.ring(MAIL_1, 1)
            bell.ring(MAIL_1, 1)
            assert ringing(second, first) == [True, True]
            second.look()
        assert second.ringing
        assert second.look() == {MAIL_1}


async def test_after_a_reset_everybody_looks_at_everything() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["mail"]) as one, bell.listening(["jobs"]) as two:
        bell.ring(MAIL, 1)
        bell.on_hint(Reset())
        # A single shard from before must not narrow the look at all of them.
        assert one.look() == two.look() == frozenset()
        assert ringing(one, two) == [False, False]


async def test_a_ring_for_one_shard_does_not_narrow_an_earlier_one_for_all() -> None:
    ear = Ear(["mail"])
    ear.ring(None)
    ear.ring(MAIL)
    assert ear.look() == frozenset()
    ear.ring(MAIL)
    ear.ring(JOBS)
    assert ear.look() == {MAIL, JOBS}


async def test_a_new_topic_wakes_those_who_wait_for_it() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["mail"]) as one, bell.listening(["jobs"]) as two:
        bell.on_hint(TopicHint("mail"))
        bell.on_hint(DueHint(JOBS, 5))
        assert ringing(one, two) == [True, False]


async def test_waiting_ends_with_the_time() -> None:
    ear = Ear(["mail"])
    assert not await ear.heard(0.001)
    ear.ring(MAIL)
    assert await ear.heard(10)


@pytest.mark.parametrize("waiting", [10, 5_000])
async def test_a_ring_touches_those_that_it_wakes_and_no_other(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that becomes ready costs the same however many Retrieves wait."""
    touched: list[Ear] = []
    ring = Ear.ring

    def is_ringing(ear: Ear) -> bool:
        touched.append(ear)
        return ear._event.is_set()

    def ring_and_note(ear: Ear, shard: ShardId | None) -> None:
        touched.append(ear)
        ring(ear, shard)

    bell = ReadyBell(NoHints())
    with ExitStack() as stack:
        ears = [stack.enter_context(bell.listening(["mail", "jobs"])) for _ in range(waiting)]
        monkeypatch.setattr(Ear, "ringing", property(is_ringing))
        monkeypatch.setattr(Ear, "ring", ring_and_note)
        for number in range(5):
            bell.ring(MAIL, 1)
            assert touched == [ears[number]]
            touched.clear()
        for ear in ears[:5]:
            ear.look()
        bell.ring(JOBS, 2)
        assert len(touched) == 2
        monkeypatch.undo()


async def test_those_that_looked_in_vain_keep_their_place() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["mail"]) as one, bell.listening(["mail"]) as two:
        bell.ring(MAIL, 1)
        assert one.look() == {MAIL}
        bell.ring(MAIL, 1)
        assert ringing(one, two) == [True, False]


async def test_after_a_reset_a_bounded_number_looks_at_the_same_time() -> None:
    """5,000 looks at once take the store a second, in which nothing else is answered."""
    bell = ReadyBell(NoHints())
    with ExitStack() as stack:
        ears = [stack.enter_context(bell.listening(["mail", "jobs"])) for _ in range(300)]
        with bell.listening(["mail"]) as gone:
            bell.on_hint(Reset())
            bell.on_hint(Reset())
            assert sum(ringing(*ears, gone)) == ROUND_STEP_COUNT
        async with asyncio.timeout(30):
            while not all(ringing(*ears)):  # noqa: ASYNC110 - the bell's own timer sets no event
                await asyncio.sleep(ROUND_STEP_S)
        assert {ear.look() for ear in ears} == {frozenset()}
        assert not gone.ringing


async def test_a_notifier_listens_to_the_hints_that_it_is_given() -> None:
    hints = NoHints()
    bell = ReadyBell(hints)
    with bell.listening(["mail"]) as ear:
        for listener in hints.listeners:
            listener(ReadyHint(MAIL, 1))
        assert ear.ringing
