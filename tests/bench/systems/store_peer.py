"""Peers that are libraries in front of Valkey or Redis, without a server of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import processes
from tests.bench.systems import Running


@dataclass
class StorePeer:
    """What these peers have in common; see System for the attributes."""

    name: str
    bulk: int = 0
    works: bool = True
    concurrency: int = 50
    lead_s: float = 4.0
    tasks_max: int = 100_000

    @asynccontextmanager
    async def start(self, folder: Path) -> AsyncIterator[Running]:
        async with processes.store(folder) as (port, pid):
            yield Running(
                f"127.0.0.1:{port}", {"store": pid}, partial(processes.used_memory_bytes, port)
            )
