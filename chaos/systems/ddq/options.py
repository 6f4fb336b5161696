"""What the processes of ddq are started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults.model import Mode

_FAILPOINTS = "chaos.systems.ddq.failpoints"


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """The settings of one run.

    Attributes:
        durability, fsync: defaults of the server, which each topic of the run takes.
        apis, schedulers: how many of each.
        settings: further settings of both by their name in ddq/config.py, as text.
        mutation: arguments of Python that start ddq with a seeded mutation; empty: ddq as it is.
        mutated_process: name of the one process that has the mutation; "" for all.
        failpoints: start each process so that it can be made to die at a point of its program.
        previous: APIs start as the previous release until each is upgraded, and schedulers are left
            to the procedure that upgrades.
    """

    durability: Mode = Mode.QUORUM
    fsync: bool = False
    apis: int = 3
    schedulers: int = 3
    leader_lease_ms: int = 2_000
    settings: Mapping[str, str] = field(default_factory=dict)
    mutation: Sequence[str] = ()
    mutated_process: str = ""
    failpoints: bool = False
    previous: bool = False

    def python(self, name: str, failpoint: Path | None) -> Sequence[str]:
        """Arguments of Python that start the process of this name; empty: it is ddq as it is."""
        if self.mutation and self.mutated_process in {"", name}:
            return self.mutation
        return ("-m", _FAILPOINTS, str(failpoint)) if failpoint else ()

    def flags(self) -> list[str]:
        """What ``ddq serve`` and ``ddq scheduler`` are given beside store and addresses."""
        settings = {
            "durability": self.durability.value,
            "leader_lease_ms": str(self.leader_lease_ms),
            **self.settings,
        }
        given = [f"--{name.replace('_', '-')}={text}" for name, text in settings.items()]
        return [*given, "--fsync" if self.fsync else "--no-fsync"]


__all__ = ["SystemOptions"]
