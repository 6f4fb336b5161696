"""The checks of the store's settings: on a real cluster, each one seen wrong once."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.clusters.process import SentinelCluster
from ddq.config import Settings
from ddq.store.barrier import DataNodes, Timing
from ddq.store.checks import Examination, _of_sentinels, examine
from ddq.store.topology import Node, SentinelSettings, open_topology, parse_store_url
from tests.cli.conftest import PROGRAM


async def look(cluster: SentinelCluster, data_nodes: str, **settings: object) -> Examination:
    topology = open_topology(parse_store_url(cluster.store_url))
    try:
        return await examine(
            topology,
            DataNodes.parse(data_nodes),
            Settings(data_nodes=data_nodes, **settings),  # type: ignore[arg-type]
            asyncio.get_running_loop().time() + 10,
        )
    finally:
        await topology.close()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[SentinelCluster]:
    cluster = SentinelCluster(folder=tmp_path / "cluster")
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


async def test_a_cluster_that_is_set_well_and_each_way_in_which_it_is_not(
    cluster: SentinelCluster,
) -> None:
    nodes = cluster.data_nodes
    well = await look(cluster, nodes)
    assert well.findings == ()
    assert well.timing(Settings()) == Timing.of(1.0)
    assert well.timing(Settings(down_after_ms=500)) == Timing.of(0.5)
    assert well.timing(Settings(down_after_ms=3_000)) == Timing.of(1.0), "a Sentinel is sooner"

    replica = next(node for node in cluster.nodes if node.name == "d2")
    wrong = {
        "appendonly": "no",
        "appendfsync": "no",
        "maxmemory-policy": "allkeys-lru",
        "min-replicas-to-write": "2",
        "min-replicas-max-lag": "10",
        "repl-diskless-sync-delay": "5",
        "replica-priority": "50",
    }
    for name, value in wrong.items():
        reply = await cluster.command(replica, "CONFIG", "GET", name)
        assert isinstance(reply, list)
        before = reply[1]
        await cluster.command(replica, "CONFIG", "SET", name, value)
        (finding,) = (await look(cluster, nodes)).findings
        assert name in str(finding)
        assert value in finding.found
        assert "SET" in finding.remedy
        await cluster.command(replica, "CONFIG", "SET", name, str(before))

    unsynced = (await look(cluster, nodes, fsync=True)).findings
    assert sum("appendfsync is everysec" in finding.found for finding in unsynced) == 3
    (unnamed,) = (await look(cluster, "")).findings[:1]
    assert (unnamed.where, "data-nodes" in unnamed.remedy) == ("data_nodes", True)
    two = ",".join(nodes.split(",")[:2])
    assert any("does not name" in finding.found for finding in (await look(cluster, two)).findings)

    def checked() -> tuple[int, str]:
        command = [*PROGRAM, "store", "check", "--store", cluster.store_url, "--data-nodes", nodes]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    status, said = await asyncio.to_thread(checked)
    assert (status, "as its durability needs it" in said) == (0, True)
    await cluster.command(replica, "CONFIG", "SET", "appendonly", "no")
    status, said = await asyncio.to_thread(checked)
    assert (status, "appendonly is no" in said) == (1, True)


def of_sentinel(**changed: int) -> SentinelSettings:
    values = {
        "down_after_ms": 1_000, "failover_timeout_ms": 10_000, "quorum": 2,
        "sentinels_count": 3, "config_epoch": 1,
    } | changed  # fmt: skip
    return SentinelSettings(Node("s", 26379), **values)


@pytest.mark.parametrize(
    ("sentinels", "word"),
    [
        ((of_sentinel(failover_timeout_ms=180_000),), "failover-timeout"),
        ((of_sentinel(sentinels_count=2),), "2 Sentinels"),
        ((of_sentinel(), of_sentinel(down_after_ms=2_000)), "differs"),
    ],
)
def test_sentinels_that_are_set_badly(sentinels: tuple[SentinelSettings, ...], word: str) -> None:
    (finding,) = _of_sentinels(sentinels)
    assert word in finding.found
    assert _of_sentinels((of_sentinel(), of_sentinel())) == []
