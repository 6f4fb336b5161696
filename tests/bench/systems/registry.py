"""Every system that can be measured, by name."""

from __future__ import annotations

from tests.bench.systems import System
from tests.bench.systems.arq import Arq
from tests.bench.systems.asynq import Asynq
from tests.bench.systems.beanstalkd import Beanstalkd
from tests.bench.systems.bullmq import BullMq
from tests.bench.systems.celery import CeleryPeer
from tests.bench.systems.chasquimq import ChasquiMq
from tests.bench.systems.ddq import Ddq, ThreeNodes, Unary
from tests.bench.systems.saq import Saq

PEERS: dict[str, System] = {
    system.name: system
    for system in (Ddq(), Asynq(), BullMq(), Beanstalkd(), ChasquiMq(), Saq(), Arq(), CeleryPeer())
}
"""ddq and other queues."""

ALONE: dict[str, System] = {
    system.name: system
    for system in (
        Ddq("ddq-2-shards", shards=2),
        Ddq("ddq-4-shards", shards=4),
        Unary(),
        Unary("ddq-unary-go-2-processes", flags=("--processes", "2")),
        ThreeNodes("ddq-3-nodes-fast", durability="fast"),
        ThreeNodes("ddq-3-nodes-quorum", durability="quorum"),
        ThreeNodes("ddq-3-nodes-all", durability="all"),
    )
}
"""Variants of ddq."""
