"""What calls over several shards answer when one of the shards cannot be asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddq.errors import StoreUnreachable
from ddq.keys import ShardId, shard_of
from ddq.store.jobstore import Cursor
from ddq.task import TaskState
from tests.support.queue import Queue, call, error_of


@pytest.fixture
async def wide(queue: Queue) -> Queue:
    """A topic of four shards, with five tasks."""
    made = Queue(queue.controlled_store, "wide")
    await made.create(shards=4)
    for number in range(20):
        await made.add(f"t{number}")
    return made


def block(wide: Queue, monkeypatch: pytest.MonkeyPatch, blocked: int) -> list[Any]:
    """A shard whose scripts are refused from now on; returns the calls that asked it."""
    runner = wide.store.topics._runner
    run = runner.run
    asked: list[Any] = []

    async def refuse(topic: Any, shard: ShardId, name: str, args: Any, call: Any) -> Any:
        if shard.index == blocked:
            asked.append(call)
            raise StoreUnreachable("its master is away")
        return await run(topic, shard, name, args, call)

    monkeypatch.setattr(runner, "run", refuse)
    return asked


async def test_a_page_ends_before_a_shard_that_does_not_answer(
    wide: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = block(wide, monkeypatch, 2)
    list_tasks = wide.store.jobs.list_tasks
    now = call()
    tasks, cursor = await list_tasks(
        wide.name, TaskState.SCHEDULED, full=False, limit=100, cursor=Cursor(), call=now
    )
    assert {shard_of(task.id, 4) for task in tasks} == {0, 1}
    assert cursor == Cursor(2), "and the next begins there"
    left_s = now.deadline_s - asyncio.get_running_loop().time()
    assert asked[0].deadline_s < now.deadline_s - left_s / 3, "there is time left to answer"
    error = await error_of(
        list_tasks(
            wide.name, TaskState.SCHEDULED, full=False, limit=100, cursor=cursor, call=call()
        )
    )
    assert error.message == "its master is away", "no page leaves tasks out unsaid"
