"""asynq, a library for Go."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.systems import Driver
from tests.bench.systems.store_peer import StorePeer
from tests.bench.systems.tools import go_program


@dataclass
class Asynq(StorePeer):
    name: str = "asynq"

    def prepare(self) -> Driver:
        return Driver([str(go_program("asynq"))])
