"""Store clusters as local processes on loopback addresses."""

from __future__ import annotations

from chaos.clusters.process.nodes import ProcessCluster
from chaos.clusters.process.sentinel import FAST_PERIODS_MS, MASTER_NAME, SentinelCluster
from chaos.clusters.process.sharded import ShardedCluster

__all__ = [
    "FAST_PERIODS_MS",
    "MASTER_NAME",
    "ProcessCluster",
    "SentinelCluster",
    "ShardedCluster",
]
