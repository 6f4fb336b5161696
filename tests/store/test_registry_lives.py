"""Two lives of one topic's name: what was meant for the first must not reach the second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddq.errors import RequestExpired, RevisionMismatch
from ddq.store.runner import Call
from ddq.task import TopicSettings
from tests.support.queue import Queue, call


async def test_a_deletion_that_stalled_spares_the_next_life(queue: Queue) -> None:
    topics, operations = queue.store.topics, queue.store.operator_api
    first, _ = await topics.create("twice", 1, TopicSettings(), call())
    deleting = await topics.mark_deleting(first, call())
    # The first deletion stalls before its last step; a second one finishes, and the name lives on.
    assert (await operations.delete_topic(deleting, call())).done
    second, created = await topics.create("twice", 1, TopicSettings(), call())
    assert created
    await topics.mark_deleting(second, call())
    await topics.forget(deleting, call())
    still = await topics.load("twice", call())
    assert still is not None
    assert still.uid == second.uid


async def test_a_revision_of_one_life_is_none_of_another(queue: Queue) -> None:
    topics, operations = queue.store.topics, queue.store.operator_api
    first, _ = await topics.create("twice", 1, TopicSettings(), call())
    await operations.delete_topic(first, call())
    second, _ = await topics.create("twice", 1, TopicSettings(), call())
    assert second.revision > first.revision
    with pytest.raises(RevisionMismatch):
        await topics.update(first, replace(first, paused=True), call())


async def test_a_change_of_a_topic_that_comes_too_late_does_nothing(queue: Queue) -> None:
    topics = queue.store.topics
    late = Call(call().deadline_s, not_after_ms=1)
    with pytest.raises(RequestExpired):
        await topics.create("late", 1, TopicSettings(), late)
    assert await topics.load("late", call()) is None


async def test_a_name_that_was_seen_while_it_was_deleted_is_not_refused_for_ever(
    queue: Queue,
) -> None:
    topics = queue.store.topics
    first, _ = await topics.create("twice", 1, TopicSettings(), call())
    going = await topics.mark_deleting(first, call())
    assert (await queue.store.operator_api.delete_topic(going, call())).done
    # As in a process that looked during the deletion, which another one finished.
    topics._known["twice"] = going
    assert await topics.find("twice", call()) is None
    topics._known["twice"] = going
    topic, _ = await topics.find_or_create("twice", call())
    assert not topic.deleting
