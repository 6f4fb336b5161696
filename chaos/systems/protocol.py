"""The system under test: what is started, called and exposed to faults beside the store.

A run knows it by this protocol only, so another queue can be put in its place. Workloads and
histories speak the language of ddq's client: a system for another queue brings clients with the
same methods, values and errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from chaos.faults.model import Target
from ddq.client import Client

FindTarget: TypeAlias = Callable[[], Awaitable[Target]]
"""Finds the process that a fault hits, at the moment of the fault."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a process reports of itself at one moment.

    Attributes:
        process: its name.
        shards_led: how many shards it leads.
        counters: by the name that gates know, for example ``deposed_batches_refused``.
    """

    process: str
    shards_led: float = 0.0
    counters: Mapping[str, float] = field(default_factory=dict)


class System(Protocol):
    """The processes of the system under test, from their start to their end.

    Attributes:
        folder: where their logs are.
    """

    folder: Path

    async def start(self) -> None:
        """Returns when every process is ready for work."""

    async def stop(self) -> None:
        """Ends every process; may be called at any time, and twice."""

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Waits until every API serves; ClusterError if one does not in time."""

    def connect(self, *, failover: bool = True) -> AbstractAsyncContextManager[list[Client]]:
        """One client per API, each with another API first.

        Args:
            failover: a client whose API does not serve uses the next one.
        """

    @property
    def targets(self) -> Mapping[str, FindTarget]:
        """The processes that faults can hit, by the name of the target in the catalogue."""

    async def observe(self) -> Sequence[Observation]:
        """What each process that can lead reports now; one that does not answer leads nothing."""

    async def accept_rollback(self) -> None:
        """The operator's command after ROLLBACK_DETECTED: what the store lost is given up.

        Raises:
            ClusterError: it failed.
        """

    def shard_key(self, topic: str, shard: int = 0) -> str:
        """A key of the store that lies in the slot of this shard, for a Cluster."""

    async def stored_ids(self, topic: str) -> set[str]:
        """Ids of the tasks of a topic of one shard, read from the surviving store itself."""

    async def differing_keys(self, shards: Mapping[str, int]) -> list[str]:
        """What the nodes of the store hold differently, once no request is under way.

        Args:
            shards: topic → how many it has.
        """

    async def write_journal(self, path: Path, shards: Mapping[str, int]) -> Mapping[str, list[int]]:
        """Writes the surviving journals of topics as chaos/history/journal.py reads them.

        Args:
            shards: topic → how many it has.

        Returns:
            Topic → how many entries the journal of each shard has dropped.
        """


__all__ = ["FindTarget", "Observation", "System"]
