"""Celery, a library for Python."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import python_driver


@dataclass
class CeleryPeer(StorePeer):
    name: str = "celery"
    lead_s: float = 10.0
    tasks_max: int = 10_000

    def prepare(self) -> Driver:
        return python_driver("celery", "celery[redis]==5.6.3")
