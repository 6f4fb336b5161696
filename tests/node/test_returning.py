"""A master that returns before its absence was noticed, on real nodes and Sentinels."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.clusters import Role
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster

WAITS = "waiting: the Sentinels still name this node as master"


async def test_a_master_that_lost_its_disk_and_is_back_at_once_comes_back_as_a_replica(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=60_000
    )
    try:
        await cluster.start()
        first = await cluster.master()
        await cluster.command(first, "SET", "acknowledged", "by all")
        await cluster.wait_until_in_sync()

        await cluster.kill(first)
        await cluster.empty_disk(first)
        await cluster.restart(first)
        # However slowly this machine starts it, it is there before it was missed.
        await cluster.until_it_says(first, WAITS)
        assert await cluster.role(first) is Role.UNREACHABLE
        await cluster.set_down_after(2_000)

        second = await cluster.wait_for_master(other_than=first)
        assert await cluster.command(second, "GET", "acknowledged") == "by all"
        await cluster.wait_until_in_sync()
        assert await cluster.command(first, "GET", "acknowledged") == "by all"
        said = cluster.log(first).read_text()
        assert "starting as a replica of" in said
        assert "starting as MASTER" not in said
    finally:
        await cluster.stop()


async def test_without_the_entrypoint_the_replicas_follow_it_down(tmp_path: Path) -> None:
    # The control of the test above: the hazard is there, and it is the entrypoint that removes it.
    cluster = SentinelCluster(folder=tmp_path, down_after_ms=60_000)
    try:
        await cluster.start()
        first = await cluster.master()
        await cluster.command(first, "SET", "acknowledged", "by all")
        await cluster.wait_until_in_sync()
        replicas = [node for node in cluster.data if node != first]
        assert [await cluster.command(node, "GET", "acknowledged") for node in replicas] == [
            "by all",
            "by all",
        ]

        await cluster.kill(first)
        await cluster.empty_disk(first)
        await cluster.restart(first, guarded=False)

        await cluster.wait_until_in_sync()
        assert await cluster.master() == first
        assert [await cluster.command(node, "GET", "acknowledged") for node in replicas] == [
            None,
            None,
        ]
    finally:
        await cluster.stop()


async def test_a_new_cluster_is_bootstrapped_once_and_the_flag_may_stay(tmp_path: Path) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, bootstrap=True, down_after_ms=2_000
    )
    try:
        await cluster.start()
        first = cluster.data[0]
        assert await cluster.master() == first
        assert "--bootstrap of a new cluster" in cluster.log(first).read_text()
        await cluster.command(first, "SET", "acknowledged", "by all")
        await cluster.wait_until_in_sync()

        # With the same command line as before, the flag included.
        await cluster.set_down_after(60_000)
        await cluster.kill(first)
        await cluster.empty_disk(first)
        await cluster.restart(first)
        await cluster.until_it_says(first, WAITS)
        await cluster.set_down_after(2_000)

        second = await cluster.wait_for_master(other_than=first)
        assert await cluster.command(second, "GET", "acknowledged") == "by all"
    finally:
        await cluster.stop()


async def test_when_every_data_node_was_down_they_come_back_by_themselves(tmp_path: Path) -> None:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    try:
        await cluster.start()
        first = await cluster.master()
        await cluster.command(first, "SET", "acknowledged", "by all")
        await cluster.wait_until_in_sync()
        for node in cluster.data:
            await cluster.kill(node)
        for node in cluster.data:
            await cluster.restart(node)
        # The replicas are there, so one of them is elected, and the old master follows it.
        second = await cluster.wait_for_master(other_than=first, timeout_s=60)
        await cluster.wait_until_in_sync(timeout_s=60)
        assert await cluster.command(second, "GET", "acknowledged") == "by all"
    finally:
        await cluster.stop()


@pytest.mark.parametrize("flags", [(), ("--force-master",)])
async def test_a_node_that_is_alone_waits_for_an_operators_word(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, data_nodes=1, sentinel_periods_ms=FAST_PERIODS_MS, node_flags=flags
    )
    try:
        await cluster.start()
        only = cluster.data[0]
        await cluster.kill(only)
        await cluster.restart(only)
        if flags:
            await cluster.wait_for_master()
        else:
            await cluster.until_it_says(only, "start it once with --force-master")
            assert await cluster.role(only) is Role.UNREACHABLE
    finally:
        await cluster.stop()
