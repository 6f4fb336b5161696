"""An error that says "no effect" is given only where that is so.

Every request that takes several scripts is played with each of its scripts refused in turn, as when
its not_after passes in the middle.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ddq.config import Settings
from ddq.errors import DdqError, RequestExpired, TopicNotFound, WriteOutcomeUnknown
from ddq.server.admin import AdminService
from ddq.store.keys import ShardId, shard_of
from ddq.store.operator_api import Progress
from ddq.store.runner import Call
from ddq.task import Outcome, Topic, TopicSettings
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, new_task

SHARDS_COUNT = 3
DEAD = [f"dead{number}" for number in range(6)]
READS = {"get", "many", "page", "version"}

Request = Callable[[Queue, Topic], Awaitable[Any]]


async def create(queue: Queue, _: Topic) -> Any:
    return await queue.store.topics.create(
        f"other-{queue.name}", SHARDS_COUNT, TopicSettings(), call()
    )


async def pause(queue: Queue, _: Topic) -> Any:
    request = admin_pb.PauseTopicRequest(name=queue.name)
    return await AdminService(queue.store).pause_topic(request, call())


async def update(queue: Queue, topic: Topic) -> Any:
    changed = replace(topic, settings=replace(topic.settings, lease_ms=1_234))
    return await queue.store.topics.update(topic, changed, call())


async def purge(queue: Queue, topic: Topic) -> Any:
    return await queue.store.operator_api.purge(topic, call("p"))


async def delete(queue: Queue, topic: Topic) -> Any:
    return await queue.store.operator_api.delete_topic(topic, call())


async def redrive_all(queue: Queue, topic: Topic) -> Any:
    return await queue.store.operator_api.redrive_all(topic, call("r"))


async def redrive(queue: Queue, topic: Topic) -> Any:
    return await queue.store.operator_api.redrive(topic, DEAD, call("r"))


async def enqueue(queue: Queue, _: Topic) -> Any:
    tasks = [new_task(f"new{number}") for number in range(6)]
    return await queue.store.jobs.enqueue(queue.name, tasks, call())


async def enqueue_first(queue: Queue, _: Topic) -> Any:
    return await queue.store.jobs.enqueue(f"other-{queue.name}", [new_task("first")], call())


REQUESTS: tuple[Request, ...] = (
    create, pause, update, purge, delete, redrive_all, redrive, enqueue, enqueue_first,
)  # fmt: skip


@dataclass
class Refusals:
    """Refuses the script number ``at``, and counts those that may change something."""

    at: int
    seen_count: int = 0
    run_count: int = 0

    async def meet(self, run: Callable[[], Awaitable[Any]]) -> Any:
        """Runs a script, or refuses it."""
        self.seen_count += 1
        if self.seen_count == self.at:
            raise RequestExpired("it had no effect")
        reply = await run()
        self.run_count += 1
        return reply


def refuse(queue: Queue, monkeypatch: pytest.MonkeyPatch, at: int) -> Refusals:
    """From now on the script number ``at`` of this process is refused."""
    runner = queue.store.topics._runner
    run, run_registry = runner.run, runner.run_registry
    refusals = Refusals(at)

    async def refusing(topic: Topic, shard: ShardId, name: str, args: Any, call: Call) -> Any:
        return await refusals.meet(lambda: run(topic, shard, name, args, call))

    async def refusing_registry(args: Any, *rest: Any, **options: Any) -> Any:
        if args[0] in READS:
            return await run_registry(args, *rest, **options)
        return await refusals.meet(lambda: run_registry(args, *rest, **options))

    monkeypatch.setattr(runner, "run", refusing)
    monkeypatch.setattr(runner, "run_registry", refusing_registry)
    return refusals


async def prepared(open_store_here: OpenStoreHere, name: str = "jobs") -> Queue:
    """A topic over three shards, each with tasks that are scheduled and tasks that are dead."""
    settings = Settings(purge_batch_count=3, promote_batch_count=2)
    queue = Queue(open_store_here(settings=settings), name)
    await queue.create(SHARDS_COUNT)
    for task_id in DEAD:
        await queue.add(task_id)
    for shard in range(SHARDS_COUNT):
        queue.leadership = None
        await queue.promote(shard)
        for lease in await queue.retrieve(shard=shard):
            await queue.nack(lease, dead=True)
    for number in range(20):
        await queue.add(f"t{number}", delay_ms=60_000)
    return queue


def claims_no_effect(answer: Any) -> bool:
    """Whether an answer says that nothing was done, and nothing else."""
    if isinstance(answer, DdqError):
        return answer.definite
    if isinstance(answer, list):
        # Each item speaks for itself; an error of the first one of a new topic says that it is new.
        return all(
            isinstance(outcome, Outcome)
            and outcome.error is not None
            and outcome.error.definite
            and "created_topic" not in outcome.error.metadata
            for outcome in answer
        )
    if isinstance(answer, Progress):
        return not answer.done and answer.count == 0
    return False


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
async def test_a_refusal_in_the_middle_is_not_reported_as_without_effect(
    open_store_here: OpenStoreHere, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    at = 0
    while True:
        at += 1
        queue = await prepared(open_store_here, f"jobs{at}")
        topic = await queue.topic()
        with monkeypatch.context() as patch:
            refusals = refuse(queue, patch, at)
            try:
                answer = await request_(queue, topic)
            except DdqError as error:
                answer = error
        if refusals.seen_count < at:
            break
        assert claims_no_effect(answer) == (refusals.run_count == 0), (at, answer)
    assert at > 2, "it takes several scripts"


async def test_an_interrupted_purge_is_finished_by_its_repeat(
    open_store_here: OpenStoreHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await prepared(open_store_here)
    with monkeypatch.context() as patch:
        refuse(queue, patch, SHARDS_COUNT + 3)
        first = await queue.purge("p")
    assert first.count > 0
    assert not first.done
    second = await queue.purge("p")
    assert second.done
    assert first.count + second.count == 26


async def test_a_purge_that_does_not_come_further_is_an_error(
    open_store_here: OpenStoreHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that calls again for as long as it is not done would never end."""
    queue = await prepared(open_store_here)
    refuse(queue, monkeypatch, SHARDS_COUNT + 1)
    with pytest.raises(WriteOutcomeUnknown, match="done in part"):
        await queue.purge("p")


async def test_a_batch_whose_topic_was_deleted_on_one_shard_repeats_only_those_tasks(
    open_store_here: OpenStoreHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would get the reply that another client had made them."""
    queue = await prepared(open_store_here)
    runner = queue.store.topics._runner
    run = runner.run
    refused: list[int] = []

    async def refuse_once(topic: Topic, shard: ShardId, name: str, args: Any, call: Call) -> Any:
        if name == "enqueue" and shard.index == 1 and not refused:
            refused.append(shard.index)
            raise TopicNotFound("it is being deleted")
        return await run(topic, shard, name, args, call)

    monkeypatch.setattr(runner, "run", refuse_once)
    tasks = [new_task(f"new{number}") for number in range(12)]
    outcomes = await queue.store.jobs.enqueue(queue.name, tasks, call())
    assert refused
    assert [outcome.unwrap().created for outcome in outcomes] == [True] * 12


async def test_a_batch_whose_topic_goes_answers_for_the_tasks_that_were_made_before(
    open_store_here: OpenStoreHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the whole would say of them too that they had no effect."""
    queue = await prepared(open_store_here)
    runner = queue.store.topics._runner
    run = runner.run

    others = asyncio.Semaphore(0)

    async def refuse(topic: Topic, shard: ShardId, name: str, args: Any, call: Call) -> Any:
        if name != "enqueue":
            return await run(topic, shard, name, args, call)
        if shard.index == 1:
            for _ in range(SHARDS_COUNT - 1):
                await others.acquire()
            await queue.store.topics.mark_deleting(topic, call)
            raise TopicNotFound("it is being deleted")
        reply = await run(topic, shard, name, args, call)
        others.release()
        return reply

    monkeypatch.setattr(runner, "run", refuse)
    tasks = [new_task(f"new{number}") for number in range(12)]
    outcomes = await queue.store.jobs.enqueue(queue.name, tasks, call())
    reasons = Counter(error.reason if (error := each.error) else "OK" for each in outcomes)
    on_other_shards = sum(shard_of(task.id, SHARDS_COUNT) != 1 for task in tasks)
    assert reasons == {"OK": on_other_shards, "TOPIC_NOT_FOUND": 12 - on_other_shards}
