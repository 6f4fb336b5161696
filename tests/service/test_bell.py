"""Who is woken by a hint: as many as there are tasks, and never nobody while somebody waits."""

from __future__ import annotations

from ddq.server.notifier import ReadyBell
from ddq.store.hints import ReadyHint, Reset, TopicHint
from ddq.store.keys import ShardId
from tests.support.hints import NoHints

A, B = ShardId("a", 0), ShardId("b", 0)


def test_one_task_wakes_the_one_that_waits_longest() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["a"]) as first, bell.listening(["a"]) as second:
        bell.on_hint(ReadyHint(A, 1))
        assert (first.ringing, second.ringing) == (True, False)
        bell.on_hint(ReadyHint(A, 1))
        assert second.ringing
        assert first.look() == second.look() == {A}


def test_many_tasks_wake_as_many_as_wait() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["a"]) as first, bell.listening(["a"]) as second:
        bell.on_hint(ReadyHint(A, 9))
        assert first.ringing
        assert second.ringing


def test_who_is_woken_for_one_topic_also_looks_at_another_that_rings_meanwhile() -> None:
    """Else the second task would lie until somebody looks by himself."""
    bell = ReadyBell(NoHints())
    with bell.listening(["a", "b"]) as ear:
        bell.on_hint(ReadyHint(A, 1))
        bell.on_hint(ReadyHint(B, 1))
        assert ear.look() == {A, B}
        assert not ear.ringing


def test_who_is_idle_is_woken_before_who_is_woken_already() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["a", "b"]) as both, bell.listening(["b"]) as idle:
        bell.on_hint(ReadyHint(A, 1))
        bell.on_hint(ReadyHint(B, 1))
        assert both.look() == {A}
        assert idle.look() == {B}


def test_who_goes_without_looking_passes_it_on() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["a"]) as second:
        with bell.listening(["a"]):
            pass
        with bell.listening(["a"]) as later:
            bell.on_hint(ReadyHint(A, 1))
            assert second.look() == {A}
            bell.on_hint(ReadyHint(A, 2))
            assert later.ringing
            second.look()
        assert second.look() == {A}


def test_a_new_topic_and_a_reset_wake_all_to_look_everywhere() -> None:
    bell = ReadyBell(NoHints())
    for hint in (TopicHint("a"), Reset()):
        with bell.listening(["a"]) as first, bell.listening(["a", "b"]) as second:
            bell.on_hint(ReadyHint(A, 1))
            bell.on_hint(hint)
            bell.on_hint(ReadyHint(A, 5))
            assert first.ringing
            assert second.ringing
            assert first.look() == second.look() == frozenset()


def test_a_topic_that_nobody_waits_for_rings_in_vain() -> None:
    bell = ReadyBell(NoHints())
    with bell.listening(["a"]) as ear:
        bell.on_hint(ReadyHint(B, 1))
        bell.on_hint(TopicHint("b"))
        assert not ear.ringing
    bell.on_hint(ReadyHint(A, 1))
