"""A store at its maxmemory refuses new tasks, and lets all tasks that it holds continue and end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddq.store.job_values import Removal
from ddq.task import TaskState
from tests.support.queue import Queue, call, error_of, errors, new_task
from tests.support.store import StoreServer


@pytest.fixture
def full(queue: Queue) -> Iterator[StoreServer]:
    """Gives the shared store its memory back at the end."""
    yield queue.server
    queue.server.sync.config_set("maxmemory", 0)


def fill_up(server: StoreServer) -> None:
    """From here on the store is over its bound, whatever is removed."""
    server.sync.config_set("maxmemory", 1_000_000)
    used = server.sync.info("memory")["used_memory"]
    assert used > 1_000_000


async def test_a_full_store_refuses_new_tasks_and_lets_the_others_end(
    queue: Queue, full: StoreServer
) -> None:
    await queue.add_dead("dead", "dead-too")
    await queue.add("scheduled", b"x" * 100_000, delay_ms=100)
    await queue.add("retried", b"y" * 100_000, delay_ms=100)
    await queue.add("waits", delay_ms=9_000_000)
    await queue.add("cancelled", delay_ms=9_000_000)
    leased = await queue.add_leased("leased")
    await queue.add("expires")
    fill_up(full)

    error = await error_of(queue.add("new"))
    assert error.reason == "STORE_FULL"
    outcomes = await queue.store.jobs.enqueue(
        queue.name, [new_task("new"), new_task("newer")], call()
    )
    assert errors(outcomes) == ["STORE_FULL", "STORE_FULL"]
    assert (await error_of(queue.get("new"))).reason == "TASK_NOT_FOUND"

    # The script cache is empty after a restart: the scripts' texts fit in too.
    full.sync.script_flush()
    queue.clock.advance(100)
    assert await queue.promote() == 3
    leases = {
        lease.task.id: lease for lease in await queue.retrieve(lease_ms=10_000, request_id="r")
    }
    assert leases["scheduled"].task.payload == b"x" * 100_000
    assert len(await queue.retrieve(request_id="r")) == 3
    await queue.extend(leases["scheduled"], 20_000)
    await queue.ack(leases["scheduled"])
    await queue.nack(leases["retried"], delay_ms=0, error="e" * 2_048)
    await queue.release(leased)
    (leased,) = await queue.retrieve()
    await queue.snooze(leased, 10)
    queue.clock.advance(10_000)
    assert await queue.reap() == 1
    await queue.reschedule("waits", 50)
    await queue.cancel("cancelled", request_id="c")
    assert errors(await queue.redrive("dead")) == ["OK"]
    assert (await queue.redrive_all("all")).count == 1
    await queue.pause()
    await queue.pause(paused=False)
    queue.clock.advance(60_000)
    await queue.promote()
    for lease in await queue.retrieve():
        await queue.ack(lease)
    for task_id in ("retried", "waits", "leased", "expires", "dead", "dead-too"):
        assert await queue.state(task_id) is TaskState.SUCCEEDED
    queue.clock.advance(9_000_000)
    assert await queue.collect() > 0
    assert (await queue.purge()).done
    assert (await error_of(queue.add("new"))).reason == "STORE_FULL"

    full.sync.config_set("maxmemory", 0)
    assert (await queue.add("new")).created


async def test_a_full_store_still_leads_lists_counts_and_deletes(
    queue: Queue, full: StoreServer
) -> None:
    await queue.add("a")
    fill_up(full)
    held = await queue.lead()
    assert await queue.list_ids(TaskState.SCHEDULED) == ["a"]
    assert (await queue.survey()).counts["scheduled"] == 1
    topic = await queue.topic()
    assert await queue.store.scheduler_api.resign(topic, queue.shard, held, call())
    outcomes = await queue.store.jobs.remove(queue.name, [Removal("a")], call())
    assert errors(outcomes) == ["OK"]
    assert (await queue.delete_topic()).done
