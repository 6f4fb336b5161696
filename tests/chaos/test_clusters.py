"""The store clusters of the chaos harness: they start whole, fail over, leave nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from chaos.clusters import (
    Ability,
    Clock,
    Cluster,
    Cut,
    Disk,
    FullDisk,
    Kill,
    Node,
    Partition,
    Pause,
    Role,
    Stray,
)
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster, ShardedCluster
from chaos.clusters.process.firewall import remove_rules_of
from chaos.clusters.process.launch import process_state
from chaos.clusters.process.sharded import SLOTS_COUNT
from chaos.clusters.process.sweep import sweep
from chaos.clusters.resp import ReplyError


async def test_a_killed_master_is_replaced_and_a_failover_can_be_asked_for(tmp_path: Path) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000
    )
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
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000
    )
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
        tags = (f"{{{n}}}" for n in range(10_000))
        mine = next(tag for tag in tags if cluster.slot_of(tag) * 3 // SLOTS_COUNT == other)
        await cluster.command(before, "SET", mine, "acknowledged")
        await cluster.wait_until_in_sync()
        await cluster.kill(before)
        await cluster.empty_disk(before)
        await cluster.restart(before)
        target = await cluster.wait_for_master(other_than=before)
        assert cluster.shard_of(target) == other
        await cluster.wait_until_in_sync()
        assert await cluster.command(target, "GET", mine) == "acknowledged"

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


async def test_a_cut_off_host_drops_packets_and_its_clients_stay_with_it() -> None:
    cluster = SentinelCluster(sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000)
    await require(cluster, Ability.PARTITION)
    try:
        await cluster.start()
        first = await cluster.master()
        inside = [node for node in cluster.nodes if node.host == first.host]
        outside = [node for node in cluster.nodes if node.host != first.host]
        name = await cluster.cut(
            [cut for a in inside for b in outside for cut in (Cut(a.ip, b.ip), Cut(b.ip, a.ip))]
        )
        second = await cluster.wait_for_master(other_than=first)
        assert await cluster.dropped_packets(name) > 0
        # The case that loses writes: who was connected to the old master still is.
        assert await cluster.role(first) is Role.MASTER
        await cluster.heal(name)
        assert await cluster.dropped_packets(name) == 0
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA
        assert await cluster.master() == second
    finally:
        await cluster.stop()
    assert not cluster.folder.exists()


async def test_a_nodes_clock_and_disk_can_be_spoilt_and_are_good_again() -> None:
    cluster = SentinelCluster(data_nodes=1, sentinels=1, clocks=True, disk_bytes=4_000_000)
    await require(cluster, Ability.CLOCK, Ability.FULL_DISK)
    try:
        await cluster.start()
        node = cluster.data[0]
        other = cluster.sentinels[0]
        await cluster.shift_clock(node, 3_600_000)
        await cluster.until(partial(_is_off_by, cluster, node, 3_600_000), 10, "no jump")
        assert await _is_off_by(cluster, other, 0)
        await cluster.shift_clock(node, 0)
        await cluster.until(partial(_is_off_by, cluster, node, 0), 10, "still off")

        await cluster.fill_disk(node)
        assert await cluster.free_disk_bytes(node) == 0
        await cluster.until(partial(_refuses_writes, cluster, node), 10, "takes writes")
        await cluster.free_disk(node)
        await cluster.until(partial(_takes_writes, cluster, node), 10, "refuses writes")
    finally:
        await cluster.stop()
    assert not cluster.folder.exists()


def _conform(
    one: SentinelCluster, other: ShardedCluster
) -> tuple[list[Cluster], list[Kill], list[Pause], list[Partition], list[Clock], list[Disk], Stray]:
    """For the type checker: the abilities are reached by a cast, which believes anything."""
    full: list[FullDisk] = [one, other]
    assert full
    return (
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        one,
    )


async def require(cluster: SentinelCluster, *abilities: Ability) -> None:
    for ability in abilities:
        if why := cluster.unavailable.get(ability):
            await cluster.stop()
            pytest.skip(f"{ability}: {why}")


async def _is_off_by(cluster: SentinelCluster, node: Node, offset_ms: int) -> bool:
    return abs(await cluster.clock_offset_ms(node) - offset_ms) < 500


async def _takes_writes(cluster: SentinelCluster, node: Node) -> bool:
    return await cluster.command(node, "SET", "key", "x" * 1_000) == "OK"


async def _refuses_writes(cluster: SentinelCluster, node: Node) -> bool:
    try:
        await _takes_writes(cluster, node)
    except ReplyError as error:
        return str(error).startswith("MISCONF")
    return False


def _traces_of(folder: str) -> list[str]:
    mounts = Path("/proc/mounts").read_text().splitlines()
    left = [str(path) for path in Path(folder).parent.iterdir() if str(path) == folder]
    return [*left, *(line for line in mounts if folder in line)]


_HARNESS = """
import asyncio
from chaos.clusters import Ability, Cut
from chaos.clusters.process import SentinelCluster

async def main():
    cluster = SentinelCluster(data_nodes=2, disk_bytes=4_000_000)
    await cluster.start()
    await cluster.cut([Cut(cluster.data[0].ip, cluster.data[1].ip)])
    print(cluster.folder, cluster.net.number)
    print(*(cluster.child(node).pid for node in cluster.nodes), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_harness_that_is_killed_and_the_next_start() -> None:
    cluster = SentinelCluster(data_nodes=1, sentinels=1, disk_bytes=1)
    await require(cluster, Ability.PARTITION, Ability.FULL_DISK)
    await cluster.stop()
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARNESS, stdout=subprocess.PIPE
    )
    assert harness.stdout is not None
    folder, number = (await harness.stdout.readline()).decode().split()
    pids = [int(pid) for pid in (await harness.stdout.readline()).split()]
    assert len(pids) == 5
    assert all(process_state(pid) is not None for pid in pids)
    harness.send_signal(signal.SIGKILL)
    await harness.wait()
    # Reaped by whoever inherits them, sooner or later; a zombie runs nothing any more.
    async with asyncio.timeout(10):
        while True:
            if all(process_state(pid) in {None, "Z"} for pid in pids):
                break
            await asyncio.sleep(0.01)

    # Another test that starts a cluster may have swept before this one did.
    await sweep()
    assert await remove_rules_of(int(number)) == 0
    assert _traces_of(folder) == []


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
