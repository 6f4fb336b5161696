"""Words for faults: a kind, its target, its strength, and what it leaves as evidence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from chaos.clusters import Ability, Cluster, ClusterError
from models.promises import PROMISES, Scope

if TYPE_CHECKING:
    from chaos.faults.links import Link

Value: TypeAlias = "str | int | float | bool"
Strength: TypeAlias = Mapping[str, Value]
# What a fault saw of itself: names and numbers for the history.
Evidence: TypeAlias = dict[str, "Value | list[str]"]

ALL_PROMISES = frozenset(promise.id for promise in PROMISES)
_EVER = frozenset(promise.id for promise in PROMISES if promise.in_fast is Scope.ALWAYS)

# A Sentinel that dies while it leads costs two failover-timeouts.
FAILOVER_TIMEOUT_S = 60.0


class DidNotHappenError(ClusterError):
    """A fault was injected and nothing came of it; the run has not tested what it says."""


class Mode(StrEnum):
    """A topic's durability."""

    FAST = "fast"
    QUORUM = "quorum"
    ALL = "all"


class FaultRow(StrEnum):
    """The classes of faults; a gate of `make chaos` requires that a campaign injects each."""

    SIGNALS = "kill, stop and continue"
    ELECTION = "two hosts in turn, on a Sentinel's own events"
    PARTITION = "partition"
    CONNECTIONS = "slow, stalled, cut, reset, sliced, throttled connections"
    CLOCK = "clock jump and drift"
    ORDER = "wrong order on purpose"
    DISK = "disk"
    SETTINGS = "unequal or unknown replicas"


class Target(Protocol):
    """One process that signals can be sent to, of the store or of ddq."""

    @property
    def name(self) -> str: ...

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""

    async def restart(self) -> None:
        """Starts it again, the way it was started."""

    async def pause(self) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""

    async def resume(self) -> None:
        """SIGCONT."""

    def alive(self) -> bool:
        """Whether its process exists."""

    def paused(self) -> bool:
        """Whether the kernel says that it is stopped."""


class Clocked(Protocol):
    """A target whose wall clock can be set wrong."""

    @property
    def name(self) -> str: ...

    async def shift_clock(self, offset_ms: int) -> None:
        """Sets it so far from the true one; 0 is right again.

        Raises:
            NotAvailableError: it has no clock of its own.
        """

    async def clock_offset_ms(self) -> int:
        """How far it is from the true one, as the process itself tells it.

        Raises:
            OSError: it does not answer.
        """


class Failing(Protocol):
    """A target that can be made to die at a point of its own program."""

    @property
    def name(self) -> str: ...

    def set_failpoint(self, failpoint: str) -> None:
        """The next time that it gets to this point it dies; "": it does not."""

    @property
    def ended_count(self) -> int:
        """How often it has ended by itself and been started again."""


@dataclass(frozen=True, slots=True)
class FaultContext:
    """What faults act on.

    Attributes:
        cluster: the store.
        processes: those of ddq by the name of a target, found at the moment of the fault: who leads
            is not known before.
        client_ips: where ddq's connections to the store come from. Loopback connections come from
            127.0.0.1 unless they are bound.
        links: connections that go through Toxiproxy, by the name of a target.
        lacks: abilities that ddq's processes do not have, with the reason and the remedy.
    """

    cluster: Cluster
    processes: Mapping[str, Callable[[], Awaitable[Target]]] = field(default_factory=dict)
    client_ips: Sequence[str] = ("127.0.0.1",)
    links: Mapping[str, Link] = field(default_factory=dict)
    lacks: Mapping[Ability, str] = field(default_factory=dict)


class Fault(Protocol):
    """One fault, once."""

    async def inject(self) -> Evidence:
        """Makes it happen; returns its targets.

        Raises:
            NotAvailableError: not on this cluster, or not here.
        """

    async def verify(self) -> Evidence:
        """After it was held, before it is healed: shows that it happened.

        Quick wherever the length of the hold matters: what came of it shows later.

        Raises:
            DidNotHappenError: it did not.
        """

    async def heal(self) -> None:
        """Undoes what can be undone; may be called without or before ``inject``, and twice."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the catalogue.

    Attributes:
        targets: what it may hit, each with the durability modes that promise to bear it.
        needs: abilities of the cluster and of ddq's processes.
        strengths: what a seed may choose from, by the name of the parameter.
        hold: for how long, as multiples of Sentinel's down-after: from, to.
        exempt: promises that are not judged while it lasts, by their own wording.
        fsync: whether the modes promise it only for topics whose replies wait for the disks too.
    """

    name: str
    row: FaultRow
    doc: str
    targets: Mapping[str, frozenset[Mode]]
    make: Callable[[FaultContext, str, Strength], Fault]
    needs: frozenset[Ability] = frozenset()
    strengths: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    hold: tuple[float, float] = (1.0, 5.0)
    exempt: frozenset[str] = frozenset()
    fsync: bool = False

    def promises(self, target: str, mode: Mode) -> frozenset[str]:
        """The ids of the promises that must survive it in this mode."""
        kept = ALL_PROMISES if mode in self.targets[target] else _EVER
        return kept - self.exempt

    def unavailable(self, context: FaultContext, target: str) -> str | None:
        """Why it cannot be had in this context, and what would help; None if it can."""
        for ability in sorted(self.needs):
            if why := context.lacks.get(ability) or context.cluster.unavailable.get(ability):
                return f"{ability}: {why}"
        if target in PROCESS_TARGETS and target not in context.processes:
            return f"{target}: this run starts no such process"
        if target in LINK_TARGETS and target not in context.links:
            return f"{target}: this run has no Toxiproxy between the two"
        return None


PROCESS_TARGETS = frozenset({"api", "scheduler", "scheduler-leader"})
LINK_TARGETS = frozenset({"api-store", "scheduler-store", "client-api"})
