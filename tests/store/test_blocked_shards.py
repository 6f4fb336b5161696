"""What calls over several shards answer when one of the shards cannot be asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddq.errors import StoreUnreachable, WriteOutcomeUnknown
from ddq.store.job_values import Cursor
from ddq.store.keys import ShardId, shard_of
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


async def dead_on_every_shard(wide: Queue) -> None:
    """Five dead tasks."""
    for shard in range(4):
        wide.leadership = None
        await wide.promote(shard)
        for lease in await wide.retrieve(shard=shard):
            await wide.nack(lease, dead=True)


@pytest.mark.parametrize("blocked", range(4))
async def test_a_redrive_goes_on_behind_a_shard_that_does_not_answer(
    wide: Queue, monkeypatch: pytest.MonkeyPatch, blocked: int
) -> None:
    await dead_on_every_shard(wide)
    there = sum(shard_of(f"t{number}", 4) == blocked for number in range(20))
    with monkeypatch.context() as patch:
        block(wide, patch, blocked)
        progress = await wide.redrive_all("r")
        assert (progress.count, progress.done) == (20 - there, False)
        error = await error_of(wide.redrive_all("r"))
        assert isinstance(error, WriteOutcomeUnknown), "no further, and not without an effect"
    progress = await wide.redrive_all("r")
    assert (progress.count, progress.done) == (there, True)


@pytest.mark.parametrize("blocked", range(4))
async def test_a_purge_draws_its_cut_behind_a_shard_that_does_not_answer(
    wide: Queue, monkeypatch: pytest.MonkeyPatch, blocked: int
) -> None:
    """What is purged is decided by the start of the request, on as many shards as answer."""
    with monkeypatch.context() as patch:
        block(wide, patch, blocked)
        error = await error_of(wide.purge("p"))
        assert isinstance(error, WriteOutcomeUnknown)
        for number in range(20):
            if shard_of(f"t{number}", 4) != blocked:
                assert await wide.state(f"t{number}") is TaskState.PURGED
    assert (await wide.purge("p")).done


async def test_settings_reach_the_shards_behind_one_that_does_not_answer(
    wide: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        block(wide, patch, 0)
        error = await error_of(wide.pause())
        assert isinstance(error, WriteOutcomeUnknown)
    control = [
        wide.server.sync.hget(ShardId(wide.name, n).key("control"), "paused") for n in range(4)
    ]
    assert control[1:] == [b"1"] * 3
