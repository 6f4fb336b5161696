"""Waiters that a hint notifies: as many as there are tasks, and at least one if any waits."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from ddq.server.notifier import ReadyNotifier
from ddq.store.hints import ReadyHint, Reset, TopicHint
from ddq.store.keys import ShardId
from tests.support.hints import NoHints

A, B = ShardId("a", 0), ShardId("b", 0)


def test_one_task_wakes_the_one_that_waits_longest() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a"]) as first, notifier.waiting(["a"]) as second:
        notifier.on_hint(ReadyHint(A, 1))
        assert (first.notified, second.notified) == (True, False)
        notifier.on_hint(ReadyHint(A, 1))
        assert second.notified
        assert first.take() == second.take() == {A}


def test_many_tasks_wake_as_many_as_wait() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a"]) as first, notifier.waiting(["a"]) as second:
        notifier.on_hint(ReadyHint(A, 9))
        assert first.notified
        assert second.notified


def test_a_waiter_notified_of_one_topic_also_takes_another_that_is_notified_meanwhile() -> None:
    """Else the second task would wait until a call polls by itself."""
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a", "b"]) as waiter:
        notifier.on_hint(ReadyHint(A, 1))
        notifier.on_hint(ReadyHint(B, 1))
        assert waiter.take() == {A, B}
        assert not waiter.notified


def test_an_idle_waiter_is_notified_before_one_that_was_notified_already() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a", "b"]) as both, notifier.waiting(["b"]) as idle:
        notifier.on_hint(ReadyHint(A, 1))
        notifier.on_hint(ReadyHint(B, 1))
        assert both.take() == {A}
        assert idle.take() == {B}


def test_a_waiter_that_leaves_without_taking_passes_the_notification_on() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a"]) as second:
        with notifier.waiting(["a"]):
            pass
        with notifier.waiting(["a"]) as later:
            notifier.on_hint(ReadyHint(A, 1))
            assert second.take() == {A}
            notifier.on_hint(ReadyHint(A, 2))
            assert later.notified
            second.take()
        assert second.take() == {A}


def test_a_new_topic_and_a_reset_wake_all_to_look_everywhere() -> None:
    notifier = ReadyNotifier(NoHints())
    for hint in (TopicHint("a"), Reset()):
        with notifier.waiting(["a"]) as first, notifier.waiting(["a", "b"]) as second:
            notifier.on_hint(ReadyHint(A, 1))
            notifier.on_hint(hint)
            notifier.on_hint(ReadyHint(A, 5))
            assert first.notified
            assert second.notified
            assert first.take() == second.take() == frozenset()


def test_a_hint_of_a_topic_without_waiters_notifies_none() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a"]) as waiter:
        notifier.on_hint(ReadyHint(B, 1))
        notifier.on_hint(TopicHint("b"))
        assert not waiter.notified
    notifier.on_hint(ReadyHint(A, 1))


def test_a_waiter_that_asks_all_passes_on_the_shard_that_it_was_woken_for() -> None:
    notifier = ReadyNotifier(NoHints())
    with ExitStack() as first:
        first.enter_context(notifier.waiting(["a", "b"]))
        with notifier.waiting(["a"]) as second:
            for hint in (ReadyHint(A, 1), TopicHint("b")):
                notifier.on_hint(hint)
            assert not second.notified
            first.close()
            assert second.take() == {A}


async def test_one_that_waits_is_notified_before_one_that_asks() -> None:
    notifier = ReadyNotifier(NoHints())
    with notifier.waiting(["a"]) as asking, notifier.waiting(["a"]) as idle:
        waiting = asyncio.create_task(idle.wait(20.0))
        await asyncio.sleep(0)
        notifier.on_hint(ReadyHint(A, 1))
        assert await waiting
        assert (asking.notified, idle.notified) == (False, True)
        notifier.on_hint(ReadyHint(A, 1))
        assert asking.notified
