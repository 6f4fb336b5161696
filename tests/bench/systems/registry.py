"""Every system that can be measured, by name."""

from __future__ import annotations

from tests.bench.systems import System
from tests.bench.systems.asynq import Asynq
from tests.bench.systems.beanstalkd import Beanstalkd
from tests.bench.systems.bullmq import BullMq
from tests.bench.systems.ddq import Ddq

PEERS: dict[str, System] = {
    system.name: system for system in (Ddq(), Asynq(), BullMq(), Beanstalkd())
}
"""ddq and other queues."""

ALONE: dict[str, System] = {
    system.name: system for system in (Ddq("ddq-2-shards", shards=2), Ddq("ddq-4-shards", shards=4))
}
"""Variants of ddq."""
