"""The store clusters of the chaos harness: they start whole, fail over, leave nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.clusters import Node, Role
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster, ShardedCluster
from chaos.clusters.process.launch import process_state


async def test_a_killed_master_is_replaced_and_a_failover_can_be_asked_for(tmp_path: Path) -> None:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    try:
        await cluster.start()
        first = await cluster.master()
        assert [await cluster.role(node) for node in cluster.data] == [
            Role.MASTER,
            Role.REPLICA,
            Role.REPLICA,
        ]

        await cluster.kill(first)
        assert await cluster.role(first) is Role.UNREACHABLE
        second = await cluster.wait_for_master(other_than=first)
        await cluster.restart(first)
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA

        third = await cluster.failover(coordinated=True)
        assert third != second
        await cluster.wait_until_in_sync()
        fourth = await cluster.failover(coordinated=False)
        assert fourth != third
    finally:
        await cluster.stop()


async def test_a_paused_master_is_stopped_in_the_kernel_and_demoted_when_it_goes_on(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    try:
        await cluster.start()
        first = await cluster.master()
        assert not cluster.paused(first)
        await cluster.pause(first)
        assert cluster.paused(first)
        await cluster.wait_for_master(other_than=first)
        await cluster.resume(first)
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA
    finally:
        await cluster.stop()


async def test_a_shard_fails_over_alone_and_a_slot_moves_with_its_keys(tmp_path: Path) -> None:
    cluster = ShardedCluster(folder=tmp_path)
    try:
        await cluster.start()
        key = "ddq:tasks:{orders}"
        slot = cluster.slot_of(key)
        source = await cluster.owner(slot)
        assert await cluster.command(source, "CLUSTER", "KEYSLOT", key) == slot
        count = 250  # more than one batch
        for n in range(count):
            await cluster.command(source, "SET", f"{n}{{orders}}", "x")

        other = (cluster.shard_of(source) + 1) % 3
        before = await cluster.master(other)
        await cluster.kill(before)
        target = await cluster.wait_for_master(other_than=before)
        assert cluster.shard_of(target) == other
        await cluster.restart(before)
        await cluster.wait_until_in_sync()

        await cluster.migrate_slot(slot, target)
        assert await cluster.owner(slot) == target
        for node in cluster.shards[other]:
            held = await cluster.command(node, "CLUSTER", "COUNTKEYSINSLOT", str(slot))
            assert held == count, node

        moved = await cluster.failover(shard=other)
        assert moved in cluster.shards[other]
        assert moved != target
    finally:
        await cluster.stop()


_HARNESS = """
import asyncio, sys
from pathlib import Path
from chaos.clusters.process import SentinelCluster

async def main():
    cluster = SentinelCluster(folder=Path(sys.argv[1]))
    await cluster.start()
    print(*(cluster.child(node).pid for node in cluster.nodes), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_no_node_outlives_a_harness_that_is_killed(tmp_path: Path) -> None:
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARNESS, str(tmp_path), stdout=subprocess.PIPE
    )
    assert harness.stdout is not None
    pids = [int(pid) for pid in (await harness.stdout.readline()).split()]
    assert len(pids) == 6
    assert all(process_state(pid) is not None for pid in pids)
    harness.send_signal(signal.SIGKILL)
    await harness.wait()
    # Reaped by whoever inherits them, sooner or later; a zombie runs nothing any more.
    async with asyncio.timeout(10):
        while True:
            if all(process_state(pid) in {None, "Z"} for pid in pids):
                break
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("data_nodes", "needed"), [(1, "0"), (3, "1")])
async def test_the_master_asks_for_a_majority_of_the_configured_nodes(
    tmp_path: Path, data_nodes: int, needed: str
) -> None:
    cluster = SentinelCluster(data_nodes=data_nodes, stray=True, folder=tmp_path)
    try:
        await cluster.start()
        master = await cluster.master()
        name, value = await _setting(cluster, master, "min-replicas-to-write")
        assert (name, value) == ("min-replicas-to-write", needed)
        assert len(cluster.data_nodes.split(",")) == data_nodes
        # The stray one is attached, though nobody configured it.
        assert (await cluster.replication(master))["connected_slaves"] == str(data_nodes)
    finally:
        await cluster.stop()


async def _setting(cluster: SentinelCluster, node: Node, name: str) -> list[object]:
    reply = await cluster.command(node, "CONFIG", "GET", name)
    assert isinstance(reply, list)
    return list(reply)
