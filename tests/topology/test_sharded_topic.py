"""One topic whose shards live on the three masters of a real Cluster, through a whole server."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from chaos.clusters.process import ShardedCluster
from ddq.config import Settings
from ddq.store.keys import ShardId, shard_of
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.support.rpc import DEADLINE_S, Producer, failure_from, seconds
from tests.support.server import RunningServer, serving

TOPIC = "orders"
SHARDS_COUNT = 8
PER_SHARD_COUNT = 5
# Durability has its own tests; here a shard must continue as soon as it has a master.
SETTINGS = Settings(durability="fast", store_checks=False, drain_ms=1, sweep_interval_ms=1_000)


def ids_of(shard: int, prefix: str) -> list[str]:
    names = (f"{prefix}{number}" for number in itertools.count())
    mine = (name for name in names if shard_of(name, SHARDS_COUNT) == shard)
    return list(itertools.islice(mine, PER_SHARD_COUNT))


async def stats(server: RunningServer) -> Any:
    return await server.admin.GetTopicStats(
        admin_pb.GetTopicStatsRequest(topic=TOPIC), timeout=DEADLINE_S
    )


async def listed(server: RunningServer) -> list[str]:
    """Every scheduled task, a page of seven at a time."""
    found: list[str] = []
    token = ""
    while True:
        page = await server.queue.ListTasks(
            pb.ListTasksRequest(
                topic=TOPIC,
                state=task_pb2.TASK_STATE_SCHEDULED,
                page_size=7,
                page_token=token,
            ),
            timeout=DEADLINE_S,
        )
        found += [task.id for task in page.tasks]
        token = page.next_page_token
        if not token:
            return found


async def persist(request: Any) -> Any:
    """Sends a request again until it is answered, as the client library does."""
    while True:
        try:
            return await request()
        except grpc.aio.AioRpcError as error:
            if failure_from(error).code != "UNAVAILABLE":
                raise
            await asyncio.sleep(0.05)


async def consume(server: RunningServer, wanted: set[str]) -> None:
    """Retrieves and acks until all of these were delivered, each once."""
    while wanted:
        reply = await persist(
            lambda: server.queue.Retrieve(
                pb.RetrieveRequest(topics=[TOPIC], max_tasks=10, wait=seconds(1)),
                timeout=DEADLINE_S,
            )
        )
        for leased in reply.tasks:
            wanted.remove(leased.task.id)
            request = pb.AckRequest(topic=TOPIC, id=leased.task.id, lease_token=leased.lease_token)
            await persist(lambda request=request: server.queue.Ack(request, timeout=DEADLINE_S))


async def test_a_topic_lives_on_three_masters_and_loses_one_at_a_time(
    sharded: ShardedCluster,
) -> None:
    shards = range(SHARDS_COUNT)
    slots = [sharded.slot_of(ShardId(TOPIC, shard).key("control")) for shard in shards]
    owners = [await sharded.owner(slot) for slot in slots]
    assert len(set(owners)) == 3
    store: Any = SimpleNamespace(url=sharded.store_url)
    async with serving(store, SETTINGS) as server:
        await server.admin.CreateTopic(
            admin_pb.CreateTopicRequest(name=TOPIC, shards=SHARDS_COUNT), timeout=DEADLINE_S
        )
        producer = Producer(server.queue, TOPIC)
        later = [name for shard in shards for name in ids_of(shard, "later")]
        now = [name for shard in shards for name in ids_of(shard, "now")]
        for name in later:
            await producer.add(name, delay=seconds(3_600))
        assert sorted(await listed(server)) == sorted(later)
        for name in now:
            await producer.add(name)
        await consume(server, {*now})
        figures = await stats(server)
        assert (figures.counts.succeeded, figures.counts.scheduled) == (len(now), len(later))
        for shard in figures.shards:
            counts = shard.counts
            assert (counts.succeeded, counts.scheduled) == (PER_SHARD_COUNT, PER_SHARD_COUNT)
        for node, slot in zip(owners, slots, strict=True):
            held = await sharded.command(node, "CLUSTER", "COUNTKEYSINSLOT", str(slot))
            assert isinstance(held, int)
            assert held > 0, "the shard is where its slot is"

        target = owners[0]
        hit = [shard for shard in shards if owners[shard] == target]
        well = [shard for shard in shards if owners[shard] != target]
        await sharded.kill(target)
        during = [name for shard in well for name in ids_of(shard, "during")]
        for name in during:
            await producer.add(name)
        await consume(server, {*during})

        await sharded.wait_for_master(other_than=target)
        after = [name for shard in hit for name in ids_of(shard, "after")]
        for name in after:
            await persist(lambda name=name: producer.add(name))
        await consume(server, {*after})
        await sharded.restart(target)
        await sharded.wait_until_in_sync()

        target = await sharded.owner(slots[well[0]])
        await sharded.migrate_slot(slots[hit[0]], target)
        moved = ids_of(hit[0], "moved")
        for name in moved:
            await persist(lambda name=name: producer.add(name))
        await consume(server, {*moved})
        assert sorted(await listed(server)) == sorted(later)


@pytest.mark.parametrize("request_id", ["", "r"])
async def test_a_slot_that_stays_between_two_masters_keeps_no_task_of_the_others(
    sharded: ShardedCluster, request_id: str
) -> None:
    """As when a move was begun, and given up in the middle."""
    slots = [sharded.slot_of(ShardId("two", shard).key("control")) for shard in range(2)]
    source = await sharded.owner(slots[0])
    masters = [await sharded.master(number) for number in range(3)]
    target = next(node for node in masters if node != source)
    store: Any = SimpleNamespace(url=sharded.store_url)
    async with serving(store, SETTINGS) as server:
        await server.admin.CreateTopic(
            admin_pb.CreateTopicRequest(name="two", shards=2), timeout=DEADLINE_S
        )
        await sharded.open_slot(slots[0], source, target)
        name = next(name for name in map(str, itertools.count()) if shard_of(name, 2) == 1)
        await Producer(server.queue, "two").add(name)
        timeout_s, wait_s = DEADLINE_S, DEADLINE_S / 2
        async with asyncio.timeout(2 * DEADLINE_S):
            reply = await server.queue.Retrieve(
                pb.RetrieveRequest(topics=["two"], wait=seconds(wait_s), request_id=request_id),
                timeout=timeout_s,
            )
        assert [leased.task.id for leased in reply.tasks] == [name]
        assert reply.tasks[0].task.attempt == 1
        await sharded.move_keys(slots[0], source, target)
        to = await sharded.command(target, "CLUSTER", "MYID")
        for master in (target, source, *(m for m in masters if m not in {target, source})):
            await sharded.command(master, "CLUSTER", "SETSLOT", str(slots[0]), "NODE", str(to))
