"""saq, a library for asyncio."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import python_driver


@dataclass
class Saq(StorePeer):
    name: str = "saq"
    tasks_max: int = 20_000

    def prepare(self) -> Driver:
        return python_driver("saq", "saq==0.26.4", "typing-extensions", "redis[hiredis]==5.3.1")
