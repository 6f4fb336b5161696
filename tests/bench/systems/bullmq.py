"""BullMQ, a library for Node.js."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import node_driver


@dataclass
class BullMq(StorePeer):
    name: str = "bullmq"
    bulk: int = 100

    def prepare(self) -> Driver:
        return node_driver("bullmq")
