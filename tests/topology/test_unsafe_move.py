"""A slot moves to a master whose replicas lack what it takes over: no operator should do that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.clusters import StoreNode
from chaos.clusters.process import ShardedCluster
from chaos.clusters.resp import ReplyError, as_info
from ddq.config import Settings
from ddq.store.barrier import DataNodes
from ddq.store.checks import examine
from ddq.store.keys import ShardId
from ddq.store.topology import importing_slots, open_topology, parse_store_url
from tests.support.rpc import DEADLINE_S, Producer, failure_of
from tests.support.server import serving

SETTINGS = Settings(data_nodes="3", drain_ms=1)
CONTROL = ShardId("jobs", 0).key("control")


async def another_master(cluster: ShardedCluster, slot: int) -> tuple[StoreNode, list[StoreNode]]:
    """Where the slot might go, and the replicas there."""
    home = await cluster.owner(slot)
    shard = next(nodes for nodes in cluster.shards if home not in nodes)
    target = await cluster.master(cluster.shards.index(shard))
    return target, [node for node in shard if node != target]


async def test_the_settings_that_ddq_asks_for_make_the_target_refuse_and_the_check_says_why(
    sharded: ShardedCluster,
) -> None:
    slot = sharded.slot_of(CONTROL)
    target, replicas = await another_master(sharded, slot)
    store: Any = SimpleNamespace(url=sharded.store_url)
    async with serving(store, SETTINGS) as server:
        producer = Producer(server.queue)
        await producer.add("kept")
        for node in replicas:
            await sharded.pause(node)

        async def alone() -> bool:
            info = as_info(await sharded.command(target, "INFO", "replication"))
            return info["min_slaves_good_slaves"] == "0"

        await sharded.until(alone, DEADLINE_S, "its replicas still count")
        with pytest.raises(ReplyError, match="NOREPLICAS"):
            await sharded.migrate_slot(slot, target, guarded=False)
        topology = open_topology(parse_store_url(sharded.store_url))
        try:
            deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
            found = await examine(topology, DataNodes.parse("3"), SETTINGS, deadline_s)
        finally:
            await topology.close()
        (finding,) = found.findings
        assert (finding.where, f"({slot}) while 0 of its 2" in finding.found) == (
            target.address, True
        )  # fmt: skip
        for node in replicas:
            await sharded.resume(node)
        await sharded.wait_until_in_sync()
        await sharded.migrate_slot(slot, target)
        leased = await producer.take()
        assert [each.task.id for each in leased] == ["kept"]


async def test_keys_that_die_on_their_way_are_a_rollback_and_no_empty_topic(
    sharded: ShardedCluster,
) -> None:
    slot = sharded.slot_of(CONTROL)
    source = await sharded.owner(slot)
    target, replicas = await another_master(sharded, slot)
    store: Any = SimpleNamespace(url=sharded.store_url)
    async with serving(store, SETTINGS) as server:
        producer = Producer(server.queue)
        await producer.add("gone")
        await sharded.open_slot(slot, source, target)
        for node in replicas:
            await sharded.pause(node)
        # For two seconds they still count, and the target takes what it is sent.
        await sharded.move_keys(slot, source, target)
        await sharded.kill(target)
        for node in replicas:
            await sharded.resume(node)
        await sharded.wait_for_master(other_than=target)
        # An operator may do this who sees a slot that is stuck.
        await sharded.command(source, "CLUSTER", "SETSLOT", str(slot), "STABLE")
        # Until then the call may have been sent on to the target, or was on its way when it died.
        while (await failure_of(producer.add("gone"))).reason != "ROLLBACK_DETECTED":
            pass


def test_importing_and_migrating_slots_are_distinguished() -> None:
    nodes = (
        "aa 127.0.0.1:1@2 master - 0 0 1 connected 0-5\n"
        "bb 127.0.0.1:3@4 myself,master - 0 0 2 connected 6-9 [7->-aa] [3-<-aa] [12-<-aa]\n"
    )
    assert importing_slots(nodes) == [3, 12]
