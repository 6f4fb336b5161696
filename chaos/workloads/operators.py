"""Operators at work: topics with traffic are paused, purged and listed, others made and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.eventually import eventually
from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import LEASE_MS, finish, retrieve, treat
from ddq.client import NewTask, Task, TaskState
from ddq.errors import DdqError, RollbackDetected

TIMEOUT_S = 6.0
RESUMED_WITHIN_S = 90.0
"""Longer than any fault lasts; a run whose topic stays paused fails."""
DEAD_SHARE = 0.2
LISTED = (TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED, TaskState.DEAD)


async def produce(actor: Actor) -> None:
    """One task, due within three seconds: some are purged or held back by a pause meanwhile."""
    task_id = actor.new_id()
    await actor.pace()
    with refused():
        await actor.recorder.enqueue_task(
            actor.topic(),
            NewTask(task_id.encode(), task_id, delay=ms(actor.rng.randrange(0, 3_000))),
            timeout_s=actor.timeout_s(),
        )


async def work(actor: Actor) -> None:
    """Many tasks fail for good, so that there are dead ones."""
    for lease in await retrieve(actor):
        if actor.load.draining:
            await finish(actor, lease)
        elif actor.rng.random() < DEAD_SHARE:
            with refused():
                await actor.recorder.nack(lease, dead_letter=True, timeout_s=4.0)
        else:
            await treat(actor, lease)


async def operate(actor: Actor) -> None:
    """One thing that an operator does to the topic that is this actor's."""
    topic = actor.load.topics[actor.number]
    await asyncio.sleep(actor.rng.uniform(0.3, 0.8))
    with refused():
        await actor.next_of(TURNS)(actor, topic)


async def _purge(actor: Actor, topic: str) -> None:
    await actor.recorder.purge_topic(topic, timeout_s=TIMEOUT_S)


async def _redrive_all(actor: Actor, topic: str) -> None:
    await actor.recorder.redrive(topic, timeout_s=TIMEOUT_S)


async def _list(actor: Actor, topic: str) -> None:
    for state in LISTED:
        await actor.recorder.list_tasks(topic, state, page_size=20, timeout_s=TIMEOUT_S)


async def _pause(actor: Actor, topic: str) -> None:
    """For a second or two. It is resumed whatever happens, or nothing of it is ever drained."""
    try:
        await actor.recorder.pause_topic(topic, timeout_s=TIMEOUT_S)
        await asyncio.sleep(actor.rng.uniform(0.8, 2.0))
    finally:
        await eventually(lambda: _resumed(actor, topic), RESUMED_WITHIN_S, poll_s=0.2)


async def _resumed(actor: Actor, topic: str) -> bool:
    """Whether it is; or the store waits for an operator, who is the harness then."""
    try:
        await actor.recorder.resume_topic(topic, timeout_s=TIMEOUT_S)
    except RollbackDetected:
        return True
    except DdqError:
        return False
    return True


async def _treat_dead(actor: Actor, topic: str) -> None:
    """Some dead tasks are redriven, one of them twice, and one is deleted."""
    recorder = actor.recorder
    dead: Sequence[Task] = await recorder.list_tasks(topic, TaskState.DEAD, timeout_s=TIMEOUT_S)
    for task in actor.rng.sample(dead, min(3, len(dead))):
        with refused():
            await recorder.redrive(topic, [task.id], timeout_s=TIMEOUT_S)
    for task in actor.rng.sample(dead, min(2, len(dead))):
        # Of a task that was redriven just now this is refused, by its state or its revision.
        with refused():
            await recorder.delete_dead(
                topic, task.id, expected_revision=task.revision, timeout_s=TIMEOUT_S
            )


async def _short_lived(actor: Actor, topic: str) -> None:
    """A topic that is made, used, deleted with tasks in several states, and then asked for."""
    recorder, name = actor.recorder, f"{topic}-{actor.new_id()}"
    await recorder.create_topic(name, shards=2, timeout_s=TIMEOUT_S)
    tasks = [NewTask(b"short-lived", f"{n}", delay=ms(3_000 * (n % 2))) for n in range(8)]
    await recorder.enqueue_batch(name, tasks, timeout_s=TIMEOUT_S)
    with refused():
        leases = await recorder.retrieve(
            name, max_tasks=2, lease=ms(LEASE_MS), wait=ms(500), timeout_s=TIMEOUT_S
        )
        await recorder.ack_batch(leases[:1], timeout_s=TIMEOUT_S)
    await recorder.delete_topic(name, timeout_s=TIMEOUT_S)
    for task in tasks[:2]:
        with refused():
            await recorder.get_task(name, task.id or "", timeout_s=TIMEOUT_S)
    with refused():
        await recorder.retrieve(name, max_tasks=8, lease=ms(LEASE_MS), timeout_s=TIMEOUT_S)


TURNS = (_pause, _treat_dead, _purge, _list, _short_lived, _pause, _treat_dead, _redrive_all)
"""What operators do, in turn."""

OPERATORS = Workload(
    "operators",
    "topics are paused and purged, dead tasks redriven, deleted and listed",
    produce,
    work,
    operate=operate,
)
