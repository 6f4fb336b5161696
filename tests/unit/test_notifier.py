"""The notifier wakes as many as there are tasks, and loses no notification when a Retrieve ends."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from ddq.server.notifier import ROUND_STEP_COUNT, ROUND_STEP_S, ReadyNotifier, Waiter
from ddq.store.hints import DueHint, ReadyHint, Reset, TopicHint
from ddq.store.keys import ShardId
from tests.support.hints import NoHints

MAIL, MAIL_1, JOBS = ShardId("mail", 0), ShardId("mail", 1), ShardId("jobs", 0)


def notified(*waiters: Waiter) -> list[bool]:
    return [waiter.notified for waiter in waiters]


async def test_as_many_are_woken_as_there_are_tasks_the_longest_waiting_first() -> None:
    notifier = ReadyNotifier(NoHints())
    with (
        notifier.waiting(["mail"]) as one,
        notifier.waiting(["jobs", "mail"]) as two,
        notifier.waiting(["mail"]) as three,
        notifier.waiting(["jobs"]) as other,
    ):
        notifier.on_hint(ReadyHint(MAIL, 2))
        assert notified(one, two, three, other) == [True, True, False, False]
        assert two.take() == {MAIL}
        # Who was woken and has not looked yet is not woken twice for another task.
        notifier.on_hint(ReadyHint(MAIL, 1))
        assert notified(one, two, three) == [True, True, False]


async def test_a_waiter_that_leaves_without_taking_passes_its_notification_on() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["mail"]) as second:
        with notifier.waiting(["mail"]) as first:
            notifier.notify(MAIL_1, 1)
            notifier.notify(MAIL_1, 1)
            assert notified(second, first) == [True, True]
            second.take()
        assert second.notified
        assert second.take() == {MAIL_1}


async def test_after_a_reset_all_waiters_look_at_everything() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["mail"]) as one, notifier.waiting(["jobs"]) as two:
        notifier.notify(MAIL, 1)
        notifier.on_hint(Reset())
        # A single shard from before must not narrow the look at all of them.
        assert one.take() == two.take() == frozenset()
        assert notified(one, two) == [False, False]


async def test_a_ring_for_one_shard_does_not_narrow_an_earlier_one_for_all() -> None:
    waiter = Waiter(["mail"])
    waiter.notify(None)
    waiter.notify(MAIL)
    assert waiter.take() == frozenset()
    waiter.notify(MAIL)
    waiter.notify(JOBS)
    assert waiter.take() == {MAIL, JOBS}


async def test_a_new_topic_wakes_those_who_wait_for_it() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["mail"]) as one, notifier.waiting(["jobs"]) as two:
        notifier.on_hint(TopicHint("mail"))
        notifier.on_hint(DueHint(JOBS, 5))
        assert notified(one, two) == [True, False]


async def test_waiting_ends_with_the_time() -> None:
    waiter = Waiter(["mail"])
    assert not await waiter.wait(0.001)
    waiter.notify(MAIL)
    assert await waiter.wait(10)


@pytest.mark.parametrize("waiting", [10, 5_000])
async def test_a_ring_touches_those_that_it_wakes_and_no_other(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that becomes ready costs the same however many Retrieves wait."""
    touched: list[Waiter] = []
    notify = Waiter.notify

    def is_notified(waiter: Waiter) -> bool:
        touched.append(waiter)
        return waiter._event.is_set()

    def notify_and_note(waiter: Waiter, shard: ShardId | None) -> None:
        touched.append(waiter)
        notify(waiter, shard)

    notifier = ReadyNotifier(NoHints())
    with ExitStack() as stack:
        waiters = [stack.enter_context(notifier.waiting(["mail", "jobs"])) for _ in range(waiting)]
        monkeypatch.setattr(Waiter, "notified", property(is_notified))
        monkeypatch.setattr(Waiter, "notify", notify_and_note)
        for number in range(5):
            notifier.notify(MAIL, 1)
            assert touched == [waiters[number]]
            touched.clear()
        for waiter in waiters[:5]:
            waiter.take()
        notifier.notify(JOBS, 2)
        assert len(touched) == 2
        monkeypatch.undo()


async def test_those_that_looked_in_vain_keep_their_place() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["mail"]) as one, notifier.waiting(["mail"]) as two:
        notifier.notify(MAIL, 1)
        assert one.take() == {MAIL}
        notifier.notify(MAIL, 1)
        assert notified(one, two) == [True, False]


async def test_after_a_reset_a_bounded_number_looks_at_the_same_time() -> None:
    """5,000 looks at once take the store a second, in which nothing else is answered."""
    notifier = ReadyNotifier(NoHints())
    with ExitStack() as stack:
        waiters = [stack.enter_context(notifier.waiting(["mail", "jobs"])) for _ in range(300)]
        with notifier.waiting(["mail"]) as gone:
            notifier.on_hint(Reset())
            notifier.on_hint(Reset())
            assert sum(notified(*waiters, gone)) == ROUND_STEP_COUNT
        async with asyncio.timeout(30):
            while not all(notified(*waiters)):  # noqa: ASYNC110 - the notifier's own timer sets no event
                await asyncio.sleep(ROUND_STEP_S)
        assert {waiter.take() for waiter in waiters} == {frozenset()}
        assert not gone.notified


async def test_a_notifier_listens_to_the_hints_that_it_is_given() -> None:
    hints = NoHints()
    notifier = ReadyNotifier(hints)
    with notifier.waiting(["mail"]) as waiter:
        for listener in hints.listeners:
            listener(ReadyHint(MAIL, 1))
        assert waiter.notified
