"""arq, a library for asyncio."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import python_driver


@dataclass
class Arq(StorePeer):
    name: str = "arq"
    concurrency: int = 500
    tasks_max: int = 20_000

    def prepare(self) -> Driver:
        return python_driver("arq", "arq==0.28.0", "redis[hiredis]==5.3.1")
