"""The system under test: the processes of ddq on a store cluster, each of which can be hurt.

Where they run is a matter of its implementations: ``chaos/systems/ddq/processes.py`` has them as
local processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chaos.faults.model import Mode, Target


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """What the processes of ddq are started with.

    Attributes:
        durability, fsync: defaults of the server, which each topic of the run takes.
        apis, schedulers: how many of each.
        settings: further settings of both by their name in ddq/config.py, as text.
        bug: name of a planted bug (chaos/experiments/mutants); "" for ddq as it is.
        bug_process: name of the one process that has it; "" for all.
        earlier: APIs start as the release before this one, until each is upgraded, and schedulers
            are left to who upgrades.
    """

    durability: Mode = Mode.QUORUM
    fsync: bool = False
    apis: int = 3
    schedulers: int = 3
    leader_lease_ms: int = 2_000
    settings: Mapping[str, str] = field(default_factory=dict)
    bug: str = ""
    bug_process: str = ""
    earlier: bool = False

    def bug_of(self, name: str) -> str:
        """The planted bug of the process of this name."""
        return self.bug if self.bug_process in {"", name} else ""

    def flags(self) -> list[str]:
        """What ``ddq serve`` and ``ddq scheduler`` are given beside store and addresses."""
        settings = {
            "durability": self.durability.value,
            "leader_lease_ms": str(self.leader_lease_ms),
            **self.settings,
        }
        given = [f"--{name.replace('_', '-')}={text}" for name, text in settings.items()]
        return [*given, "--fsync" if self.fsync else "--no-fsync"]


class System(Protocol):
    """The processes of ddq, from their start to their end.

    Attributes:
        folder: where their logs are.
    """

    folder: Path

    @property
    def apis(self) -> Sequence[Target]:
        """Those of ``ddq serve``."""

    @property
    def schedulers(self) -> Sequence[Target]:
        """Those of ``ddq scheduler``."""

    @property
    def addresses(self) -> Sequence[str]:
        """Where the APIs are reached, in the order of ``apis``."""

    async def start(self) -> None:
        """Returns when every API serves and every scheduler schedules."""

    async def stop(self) -> None:
        """Ends every process; may be called at any time, and twice."""

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Waits until every API says that it serves; ClusterError if one does not in time."""

    async def metrics(self, process: Target) -> Mapping[str, float]:
        """What a process tells Prometheus, summed over labels; empty if it does not answer."""

    async def leader(self) -> Target:
        """The scheduler that leads most shards now; ClusterError if none leads any."""

    async def accept_rollback(self) -> None:
        """The operator's way out after ROLLBACK_DETECTED: what the store lost is lost."""

    async def terminate(self, process: Target) -> None:
        """SIGTERM; returns when it has ended by itself."""

    async def upgrade(self, process: Target) -> None:
        """Starts one that has ended again, as this version, whatever it was before."""
