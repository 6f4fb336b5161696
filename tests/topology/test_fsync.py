"""Barriers that wait for disks, on real replicas."""

from __future__ import annotations

from pathlib import Path

import redis.asyncio

from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster
from ddq.store.barrier import DataNodes, Policy, Timing
from ddq.store.barrier_sender import BarrierSender, no_elections
from ddq.store.connection import RedisConnection
from ddq.store.scripts import default_scripts
from ddq.task import Durability
from tests.support.store import needs_waitaof

DOWN_AFTER_S = 2.0
SENDS_COUNT = 10


@needs_waitaof
async def test_a_barrier_for_all_disks_is_confirmed_by_its_first_send(tmp_path: Path) -> None:
    # With one WAITAOF of 250 ms, 2 of 25 were, and a store without load confirmed none for 50 s.
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, appendfsync="always"
    )
    try:
        await cluster.start()
        master = await cluster.master()
        sender = BarrierSender(
            RedisConnection(lambda: redis.asyncio.Connection(host=master.ip, port=master.port)),
            5.0,
            Policy(Durability.ALL, True, DataNodes(3), Timing.of(DOWN_AFTER_S)),
            heartbeat=default_scripts()["heartbeat"],
            keep_s=60.0,
            on_break=lambda: None,
            on_no_election=lambda: None,
            ask_elections=no_elections,
            trusted_s=float("-inf"),
            suspended_s=lambda: 0.0,
        )
        sender._heartbeat_key = "ddq:beat:{test}"
        sent = [await sender.send([]) for _ in range(SENDS_COUNT)]
        assert [(each.replicas_acked, each.confirmed) for each in sent] == [(2, True)] * SENDS_COUNT
        await sender.close()
    finally:
        await cluster.stop()
