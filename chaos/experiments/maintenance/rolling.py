"""A rolling restart of everything, as docs/OPERATIONS.md describes it."""

from __future__ import annotations

import signal

from chaos.clusters import StoreNode
from chaos.experiments.maintenance.story import Stage, Story


async def restart_everything(stage: Stage) -> None:
    """Every process of ddq, every Sentinel and every data node, one after the other."""
    await restart_ddq(stage)
    await restart_store(stage)


async def restart_ddq(stage: Stage) -> None:
    """SIGTERM, and started again; the next one when this one serves."""
    system = stage.deployment.system
    for process in (*system.apis, *system.schedulers):
        async with stage.step("restart", process.name):
            await system.terminate(process)
            await process.restart()
            await system.wait_until_serving()


async def restart_store(stage: Stage) -> None:
    """Sentinels, replicas, then the old master: after a coordinated failover it is a replica."""
    cluster = stage.sentinel
    for sentinel in cluster.sentinels:
        async with stage.step("restart", sentinel.name):
            await _restart(stage, sentinel)
            await cluster.until_sentinels_agree()
    master = await cluster.wait_for_master()
    for node in [*(node for node in cluster.data if node != master), master]:
        if node == await cluster.wait_for_master():
            async with stage.step("failover", node.name):
                await cluster.failover(coordinated=True)
                await cluster.wait_until_in_sync()
        async with stage.step("restart", node.name):
            await _restart(stage, node)
            await cluster.wait_until_in_sync()


async def _restart(stage: Stage, node: StoreNode) -> None:
    child = stage.sentinel.child(node)
    child.signal(signal.SIGTERM)
    await child.wait()
    await stage.sentinel.restart(node)


ROLLING = Story(
    "a rolling restart of everything loses nothing, and fails no request that has 30 s",
    restart_everything,
)

__all__ = ["ROLLING", "restart_ddq", "restart_everything", "restart_store"]
