"""ChasquiMQ, a library with a core in Rust."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import python_driver


@dataclass
class ChasquiMq(StorePeer):
    name: str = "chasquimq"
    bulk: int = 100
    works: bool = False

    def prepare(self) -> Driver:
        return python_driver("chasquimq", "chasquimq==1.3.0")
