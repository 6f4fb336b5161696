"""A batch does what its items would do one after the other, with few commands in the store."""

from __future__ import annotations

from typing import Any

import pytest

from ddq.config import Settings
from ddq.store.job_values import Settlement
from ddq.task import OnConflict, TaskState
from tests.bench.scripts import measure
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, errors, new_task
from tests.support.store import StoreServer

COMMANDS = {
    ("enqueue", 1): 21, ("promote", 1): 27, ("retrieve", 1): 33, ("ack", 1): 21,
    ("enqueue", 100): 35, ("promote", 100): 41, ("retrieve", 100): 47, ("ack", 100): 35,
}  # fmt: skip
"""The most commands that the store runs for a batch of so many tasks. Each script has those that
check the types of its keys, read its control record, the caller's counter and the time, and write
control at its end. The others are two for 16 tasks that are read, and one for each key written."""
COUNT = 1_300
"""More values than one store command of a script takes, whether a task has one of them or two."""


@pytest.mark.parametrize("size", [1, 100])
async def test_commands_of_a_batch_are_few(store_server: StoreServer, size: int) -> None:
    measured = await measure(store_server, [size], 1)
    found = {key: round(each * size) for key, each in measured.commands.items()}
    assert found.keys() == {key for key in COMMANDS if key[1] == size}
    assert {key: count for key, count in found.items() if count > COMMANDS[key]} == {}


def outcome_names(outcomes: Any) -> list[str]:
    """What became of each item."""
    return [
        f"created {outcome.value.created}" if hasattr(outcome.value, "created") else reason
        for outcome, reason in zip(outcomes, errors(outcomes), strict=True)
    ]


async def play(queue: Queue, together: int) -> dict[str, Any]:
    """What becomes of the same items in batches of so many.

    New tasks, repeats, conflicts and replacements; then leases that hold, are lost or come twice,
    and a task that does not exist.
    """
    await queue.create()
    modes = [OnConflict.FAIL, OnConflict.RETURN_EXISTING, OnConflict.REPLACE_IF_SCHEDULED]
    tasks = [
        new_task(
            f"t{number % 900 if number % 10 else number % 30}",
            b"other" if number % 7 == 0 else b"x" * (20_000 if number % 97 == 0 else 10),
            on_conflict=modes[number % 11 % 3],
        )
        for number in range(COUNT)
    ]

    async def in_batches(items: list[Any], run: Any) -> list[str]:
        names: list[str] = []
        for first in range(0, len(items), together):
            part = items[first : first + together]
            names += outcome_names(await run(queue.name, part, call("r")))
        return names

    seen: dict[str, Any] = {"enqueued": await in_batches(tasks, queue.store.jobs.enqueue)}
    seen["promoted"] = await queue.promote()
    leases = []
    while more := await queue.retrieve(together):
        leases += more
    seen["payloads"] = [(lease.task.id, lease.task.payload) for lease in leases]
    settlements = []
    for number, lease in enumerate(leases):
        token = b"w" * 16 if number % 5 == 0 else lease.token
        settlements += [Settlement(lease.task.id, token)] * (2 if number % 3 == 0 else 1)
        if number % 50 == 0:
            settlements.append(Settlement("unknown", token))
    seen["settled"] = await in_batches(settlements, queue.store.jobs.ack)
    seen["counts"] = (await queue.survey()).counts
    seen["states"] = {state: await queue.list_ids(state) for state in TaskState}
    assert_all_conserved(queue.server.sync)
    return seen


@pytest.mark.parametrize("together", [7, COUNT])
async def test_the_items_of_a_batch_do_what_they_would_do_alone(
    open_store_here: OpenStoreHere, together: int
) -> None:
    store = open_store_here(settings=Settings(promote_batch_count=COUNT))
    alone = await play(Queue(store, "alone"), 1)
    assert await play(Queue(store, "together"), together) == alone
    assert set(alone["enqueued"]) == {"created True", "created False", "TASK_ID_CONFLICT"}
    assert set(alone["settled"]) == {"OK", "LEASE_LOST", "TASK_NOT_FOUND"}
