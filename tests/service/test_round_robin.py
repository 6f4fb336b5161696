"""Retrieve is fair: with any others busy, no shard and no topic waits for ever, or for long."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence

import pytest

from ddq.errors import DdqError, StoreUnreachable, WriteOutcomeUnknown
from ddq.server.notifier import ReadyNotifier
from ddq.server.round_robin import REMEMBERED_MAX_COUNT, RoundRobin
from ddq.server.service import QueueService
from ddq.store.keys import ShardId, shard_of
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.queue import Queue, call, error_of

Key = tuple[str, int]


async def fill(queue: Queue, per_shard: int, shards: Sequence[int] | None = None) -> None:
    """So many ready tasks on each of these shards, or on all."""
    count = (await queue.topic()).shards
    for shard in range(count) if shards is None else shards:
        ids = (f"t{n}" for n in itertools.count() if shard_of(f"t{n}", count) == shard)
        for task_id in itertools.islice(ids, per_shard):
            await queue.add(task_id)
        await queue.promote(shard)


async def take(
    service: QueueService, *topics: str, count: int = 1, request_id: str = ""
) -> Counter[Key]:
    """One Retrieve: how many tasks of which shard."""
    request = pb.RetrieveRequest(topics=topics, max_tasks=count, request_id=request_id)
    found = await service.retrieve(request, call(request_id))
    taken: Counter[Key] = Counter()
    for leased in found.tasks:
        topic = await service._store.topics.require(leased.task.topic, call())
        taken[topic.name, shard_of(leased.task.id, topic.shards)] += 1
    return taken


async def sharded(queue: Queue, shards: int, name: str = "sharded") -> Queue:
    made = Queue(queue.controlled_store, name)
    await made.create(shards=shards)
    return made


@pytest.mark.parametrize("request_ids", [False, True])
@pytest.mark.parametrize("shards", [2, 3, 4])
async def test_busy_shards_are_served_in_turn(queue: Queue, shards: int, request_ids: bool) -> None:
    many = await sharded(queue, shards)
    await fill(many, 4)
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    for _ in range(3):
        served: Counter[Key] = Counter()
        for n in range(shards):
            request_id = f"{_}-{n}" if request_ids else ""
            served += await take(service, many.name, request_id=request_id)
        assert served == {(many.name, shard): 1 for shard in range(shards)}


async def test_shards_that_are_empty_do_not_give_their_turns_to_their_neighbour(
    queue: Queue,
) -> None:
    many = await sharded(queue, 8)
    await fill(many, 6, shards=[0])
    await fill(queue, 6)
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    served: Counter[Key] = Counter()
    for _ in range(6):
        served += await take(service, many.name, queue.name)
    assert served == {(many.name, 0): 3, (queue.name, 0): 3}


async def test_those_who_ask_at_the_same_time_share_the_turns(queue: Queue) -> None:
    many = await sharded(queue, 4)
    await fill(many, 4)
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    taken = await asyncio.gather(*(take(service, many.name) for _ in range(8)))
    served: Counter[Key] = sum(taken, Counter())
    assert served == {(many.name, shard): 2 for shard in range(4)}


async def test_a_large_reply_goes_on_where_the_last_one_ended(queue: Queue) -> None:
    many = await sharded(queue, 3)
    await fill(many, 4)
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    assert await take(service, many.name, count=6) == {(many.name, 0): 4, (many.name, 1): 2}
    assert await take(service, many.name, count=6) == {(many.name, 2): 4, (many.name, 1): 2}


def failing(
    service: QueueService, monkeypatch: pytest.MonkeyPatch, shard: int, error: DdqError
) -> None:
    """From now on everything on this shard ends so."""
    retrieve = service._jobs.retrieve

    async def fail(topic: object, index: int, **options: object) -> object:
        if index == shard:
            raise error
        return await retrieve(topic, index, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(service._jobs, "retrieve", fail)


@pytest.mark.parametrize("request_id", ["", "r"])
async def test_a_shard_whose_master_is_away_does_not_stop_the_others(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, request_id: str
) -> None:
    many = await sharded(queue, 3)
    await fill(many, 2, shards=[1, 2])
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    failing(service, monkeypatch, 0, StoreUnreachable("its master is away"))
    taken = await take(service, many.name, count=9, request_id=request_id)
    assert taken == {(many.name, 1): 2, (many.name, 2): 2}
    error = await error_of(take(service, many.name, request_id=request_id and "s"))
    assert error.message == "its master is away", "there may be tasks on shards that were not asked"


async def test_an_unknown_outcome_ends_a_retrieve(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may be leased there, and only a repeat with the same id can hand it out."""
    many = await sharded(queue, 3)
    await fill(many, 1, shards=[1])
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))
    failing(service, monkeypatch, 0, WriteOutcomeUnknown("the answer was lost"))
    assert (await error_of(take(service, many.name))).reason == "WRITE_OUTCOME_UNKNOWN"


def test_turns_are_remembered_for_so_many_shards_only() -> None:
    turns = RoundRobin()
    for number in range(REMEMBERED_MAX_COUNT + 10):
        turns.ask(ShardId(f"t{number}", 0))
    assert len(turns) == REMEMBERED_MAX_COUNT
    first, last = ShardId("t10", 0), ShardId(f"t{REMEMBERED_MAX_COUNT + 9}", 0)
    assert turns.order([last, first, ShardId("new", 0)], lambda shard: shard) == [
        ShardId("new", 0),
        first,
        last,
    ]
    turns.ask(first)
    turns.ask(ShardId("new", 0))
    assert turns.order([first, last], lambda shard: shard) == [last, first], "asked again"
    for number in range(REMEMBERED_MAX_COUNT - 2):
        turns.ask(ShardId(f"other{number}", 0))
    assert turns.order([first, ShardId("x", 0)], lambda shard: shard)[1] == first, "still known"
