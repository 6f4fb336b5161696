"""A rolling restart of everything, as docs/OPERATIONS.md describes it."""

from __future__ import annotations

import signal

from chaos.clusters import StoreNode
from chaos.experiments.maintenance.procedure import Procedure
from chaos.experiments.recorded import RecordedSession


async def restart_everything(session: RecordedSession) -> None:
    """Every process of ddq, every Sentinel and every data node, one after the other."""
    await restart_ddq(session)
    await restart_store(session)


async def restart_ddq(session: RecordedSession) -> None:
    """SIGTERM, and started again; the next one when this one serves."""
    system = session.ddq
    for process in (*system.apis, *system.schedulers):
        async with session.step("restart", process.name):
            await process.terminate()
            await process.restart()
            await system.wait_until_serving()


async def restart_store(session: RecordedSession) -> None:
    """Sentinels, replicas, then the old master: after a coordinated failover it is a replica."""
    cluster = session.sentinel
    for sentinel in cluster.sentinels:
        async with session.step("restart", sentinel.name):
            await _restart(session, sentinel)
            await cluster.until_sentinels_agree()
    master = await cluster.wait_for_master()
    for node in [*(node for node in cluster.data if node != master), master]:
        if node == await cluster.wait_for_master():
            async with session.step("failover", node.name):
                await cluster.failover(coordinated=True)
                await cluster.wait_until_in_sync()
        async with session.step("restart", node.name):
            await _restart(session, node)
            await cluster.wait_until_in_sync()


async def _restart(session: RecordedSession, node: StoreNode) -> None:
    child = session.sentinel.child(node)
    child.signal(signal.SIGTERM)
    await child.wait()
    await session.sentinel.restart(node)


ROLLING = Procedure(
    "a rolling restart of everything loses nothing, and fails no request that has 30 s",
    restart_everything,
)

__all__ = ["ROLLING", "restart_ddq", "restart_everything", "restart_store"]
