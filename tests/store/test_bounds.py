"""However large the tasks are, one script reads 4 MiB of them and leaves the rest to the next."""

from __future__ import annotations

from typing import Any

import pytest

from ddq.store.job_values import Extension, Leased, Postponement, Rejection, Removal, Settlement
from ddq.task import OnConflict, Outcome, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue, call, errors, new_task

TASKS_COUNT = 9
PAYLOAD = b"x" * 1_048_576
AT_ONCE_COUNT = 4
"""The record that reaches the bound is the last that is read."""


async def add_all(queue: Queue) -> None:
    for number in range(TASKS_COUNT):
        await queue.add(f"t{number}", PAYLOAD, max_attempts=1)


async def test_promotion_and_reaping_stop_at_the_bytes_that_a_script_may_read(
    queue: Queue,
) -> None:
    await add_all(queue)
    topic, held, scheduler_api = await queue.topic(), await queue.lead(), queue.store.scheduler_api
    first = await scheduler_api.promote(topic, queue.shard, held, call())
    assert (first.count, first.next_wake_up.promotable) == (AT_ONCE_COUNT, True)
    await queue.promote()
    while await queue.retrieve(lease_ms=10_000):
        pass
    queue.clock.advance(10_000)
    first = await scheduler_api.reap(topic, queue.shard, held, call())
    assert (first.count, first.next_wake_up.reapable) == (AT_ONCE_COUNT, True)
    await queue.reap()
    assert len(await queue.list_ids(TaskState.DEAD)) == TASKS_COUNT
    assert_all_conserved(queue.server.sync)


async def test_redriving_and_purging_stop_at_the_bytes_that_a_script_may_read(
    queue: Queue,
) -> None:
    await add_all(queue)
    await queue.promote()
    while await queue.retrieve(lease_ms=10_000):
        pass
    queue.clock.advance(10_000)
    await queue.reap()
    topic, run = await queue.topic(), queue.store.scripts.run

    redriven = await run(topic, 0, "redrive", ["r", 100], call("r"))
    assert redriven.body[0][:2] == [AT_ONCE_COUNT, 0]
    assert (await queue.redrive_all("r")).done
    purged = await run(topic, 0, "purge", ["p", 100], call("p"))
    assert purged.body[0] == [AT_ONCE_COUNT, 0]
    assert (await queue.purge("p")).done
    assert (await queue.survey()).counts["purged"] == TASKS_COUNT
    assert_all_conserved(queue.server.sync)


async def test_a_listing_of_large_tasks_reads_them_in_bounded_scripts(queue: Queue) -> None:
    """What is listed is small, what has to be read for it is not."""
    await add_all(queue)
    topic, run = await queue.topic(), queue.store.scripts.run
    first = await run(topic, 0, "list", [1, 0, 100, 3_000_000, 500, "", ""], call())
    more, _, last_id, tasks = first.body[0]
    assert (more, len(tasks), last_id) == (2, AT_ONCE_COUNT, tasks[-1][0])
    queue.server.reset_stats()
    assert len(await queue.list_ids(TaskState.SCHEDULED)) == TASKS_COUNT
    assert queue.server.script_calls() == -(-TASKS_COUNT // AT_ONCE_COUNT)


@pytest.mark.parametrize(
    "script",
    ["cancel", "ack", "nack", "extend", "release", "snooze", "enqueue", "debounce", "redrive"],
)
async def test_a_batch_reads_large_tasks_in_bounded_scripts_and_answers_for_all(
    queue: Queue, script: str
) -> None:
    """A batch names tasks, and does not know how large they are."""
    ids = [f"t{number}" for number in range(TASKS_COUNT)]
    await add_all(queue)
    leases: list[Leased] = []
    if script not in {"cancel", "enqueue", "debounce"}:
        await queue.promote()
        while more := await queue.retrieve(lease_ms=10_000):
            leases += more
        if script == "redrive":
            queue.clock.advance(10_000)
            await queue.reap()
    jobs = queue.store.jobs
    queue.server.reset_stats()
    outcomes: list[Outcome[Any]]
    if script == "cancel":
        outcomes = [*await jobs.remove(queue.name, [Removal(each) for each in ids], call())]
    elif script == "enqueue":
        existing = OnConflict.RETURN_EXISTING
        tasks = [new_task(each, on_conflict=existing) for each in ids]
        outcomes = [*await jobs.enqueue(queue.name, tasks, call())]
    elif script == "debounce":
        event: dict[str, Any] = {"on_conflict": OnConflict.DEBOUNCE, "debounce_limit_ms": 1_000}
        tasks = [new_task(each, **event) for each in ids]
        outcomes = [*await jobs.enqueue(queue.name, tasks, call("r"))]
    elif script == "snooze":
        postponed = [Postponement(each.task.id, each.token, 1_000) for each in leases]
        outcomes = [*await jobs.snooze(queue.name, postponed, call())]
    elif script == "redrive":
        topic = await queue.topic()
        outcomes = [*await queue.store.operator_api.redrive(topic, ids, call("r"))]
    else:
        items = {"nack": Rejection, "extend": Extension}.get(script, Settlement)
        settle = getattr(jobs, script)
        outcomes = await settle(
            queue.name, [items(each.task.id, each.token) for each in leases], call()
        )
    assert errors(outcomes) == ["OK"] * TASKS_COUNT
    # One that the store does not know yet is sent twice, and the table of topics is a script too.
    least = -(-TASKS_COUNT // AT_ONCE_COUNT)
    assert least <= queue.server.script_calls() <= least + 2
    assert_all_conserved(queue.server.sync)


async def test_a_repeated_retrieve_does_not_read_what_took_the_place_of_its_tasks(
    queue: Queue,
) -> None:
    """Small tasks were leased together; the ids may be of large ones by now."""
    ids = [f"t{number}" for number in range(TASKS_COUNT)]
    for each in ids:
        await queue.add(each)
    await queue.promote()
    leases = await queue.retrieve(len(ids), request_id="r")
    await queue.store.jobs.ack(queue.name, [Settlement(e.task.id, e.token) for e in leases], call())
    for each in ids:
        await queue.add(each, PAYLOAD, on_conflict=OnConflict.REPLACE_IF_FINISHED)
    queue.server.reset_stats()
    assert await queue.retrieve(len(ids), request_id="r") == []
    assert queue.server.commandstats()["hget"] < 2 * len(ids), "states, and no payloads"


async def test_a_page_may_be_exactly_as_large_as_it_may_be(queue: Queue) -> None:
    for task_id in "abc":
        await queue.add(task_id, b"x" * 27)
    topic, run = await queue.topic(), queue.store.scripts.run
    whole = await run(topic, 0, "list", [1, 1, 10, 10_000, 50, "", ""], call())
    task_id, record, state_record, *_ = whole.body[0][3][0]
    each = len(task_id) + len(record) + len(state_record) + 50
    for max_bytes, expected in ((2 * each - 1, 1), (2 * each, 2), (2 * each + 1, 2), (3 * each, 3)):
        page = await run(topic, 0, "list", [1, 1, 10, max_bytes, 50, "", ""], call())
        more, _, _, tasks = page.body[0]
        assert (len(tasks), more) == (expected, int(expected < 3)), max_bytes


async def test_a_journal_is_forgotten_in_bounded_steps(queue: Queue) -> None:
    journalled = Queue(queue.controlled_store, "journalled")
    await journalled.create(journal=True)
    for number in range(5):
        await journalled.add(f"t{number}")
    topic = await queue.store.topics.mark_deleting(await journalled.topic(), call())
    await queue.store.operator_api.purge(topic, call("p"), while_deleting=True)
    entries = queue.server.sync.xlen(journalled.key("journal"))
    assert entries == 10, "five came and five went"
    steps: list[int] = []
    while not steps or not steps[-1]:
        reply = await queue.store.scripts.run(
            topic, 0, "erase", [6], call("p"), while_deleting=True
        )
        steps.append(reply.body[0][0])
    assert steps == [0, 1]
