"""A store cluster for fault injection: what every kind offers, and what only some can do.

``Cluster`` is what a run needs anywhere. What hurts it are abilities, one protocol each: a kind of
cluster offers those that its machine allows, and says of each other one why not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from chaos.clusters.resp import Reply, Subscription


class ClusterError(Exception):
    """The cluster did not do what it was asked for; the message says what and where."""


class NotAvailableError(ClusterError):
    """This cluster has no such ability here; the message says why, and what would help."""


class NodeKind(StrEnum):
    """What a node of the store is for."""

    DATA = "data"
    SENTINEL = "sentinel"


class Role(StrEnum):
    """What a node says of itself."""

    MASTER = "master"
    REPLICA = "replica"
    SENTINEL = "sentinel"
    UNREACHABLE = "unreachable"


class Ability(StrEnum):
    """What can be done to a cluster beyond watching it; one protocol below for each.

    FAILPOINT is one of ddq's processes: see ``Failing`` in chaos/faults/model.py.
    """

    KILL = "kill"
    PAUSE = "pause"
    PARTITION = "partition"
    CLOCK = "clock"
    DISK = "disk"
    FULL_DISK = "full-disk"
    POWER = "power"
    UNCONFIGURED = "unconfigured"
    CABLE = "cable"
    FAILPOINT = "failpoint"


@dataclass(frozen=True, slots=True)
class StoreNode:
    """One process of the store.

    Attributes:
        name: unique in its cluster: ``d1`` the first data node, ``s1`` its Sentinel.
        host: what stands and falls with it: ``h1``.
        ip: an address of its own, so that its traffic can be distinguished.
    """

    name: str
    kind: NodeKind
    host: str
    ip: str
    port: int

    @property
    def address(self) -> str:
        """ip:port."""
        return f"{self.ip}:{self.port}"


class Cluster(Protocol):
    """A store of several nodes, from its start to its end.

    Attributes:
        folder: where its configurations and logs are.
        nodes: all of them, fixed at the start.
        unavailable: each ability that it lacks here, with the reason and the remedy.
    """

    folder: Path

    @property
    def nodes(self) -> Sequence[StoreNode]: ...

    @property
    def unavailable(self) -> Mapping[Ability, str]: ...

    @property
    def store_url(self) -> str:
        """What ``ddq --store`` is given."""

    @property
    def data_nodes(self) -> str:
        """What ``ddq --data-nodes`` is given: addresses with commas, or in a Cluster how many."""

    def group(self, node: StoreNode) -> Sequence[StoreNode]:
        """The configured data nodes that hold the same data as this one, itself included."""

    async def start(self) -> None:
        """Returns when every replica is in sync and every Sentinel knows all of the others."""

    async def stop(self) -> None:
        """Ends every process; may be called at any time, and twice."""

    async def command(self, node: StoreNode, *words: str, timeout_s: float = 2.0) -> Reply:
        """One command to one node.

        Raises:
            OSError: the node cannot be reached, or does not answer in time.
            ReplyError: it answered with an error.
        """

    async def subscribe(self, node: StoreNode, pattern: str) -> Subscription:
        """Receives what a node publishes on channels that match the pattern.

        Raises:
            OSError: the node cannot be reached.
        """

    async def role(self, node: StoreNode) -> Role:
        """What the node says of itself at this moment."""

    async def master(self) -> StoreNode:
        """Who is master in the eyes of a majority; ClusterError if there is none."""

    async def wait_for_master(
        self, other_than: StoreNode | None = None, timeout_s: float = 30.0
    ) -> StoreNode:
        """Waits until a majority names a master, not the given one, that says so itself."""

    async def wait_until_in_sync(self, timeout_s: float = 30.0) -> None:
        """Waits until every data node is there, and every replica at its master's end."""

    async def failover(self, *, coordinated: bool = True) -> StoreNode:
        """Moves the master on purpose, and returns the new one.

        Args:
            coordinated: pause writes and wait for the replica first; without, writes are lost.
        """


class Unconfigured(Protocol):
    """A replica that is not configured can be attached."""

    async def attach_unconfigured(self) -> StoreNode:
        """Starts one more replica of the present master; returns when it is in sync."""

    async def detach_unconfigured(self, node: StoreNode) -> None:
        """Ends it."""


class Kill(Protocol):
    """Nodes can be ended at once and be started again."""

    async def kill(self, node: StoreNode) -> None:
        """SIGKILL; returns when the process is gone."""

    async def restart(self, node: StoreNode, *, guarded: bool = True) -> None:
        """Starts a node that is down; returns when it was started, not when it is in sync.

        Args:
            guarded: a data node is kept waiting until it cannot lead any more, by ``ddq node``
                where there are Sentinels; else the bare server is started at once, with the
                configuration that it had.
        """

    def alive(self, node: StoreNode) -> bool:
        """Whether its process exists."""


class Pause(Protocol):
    """Nodes can be paused and resumed."""

    async def pause(self, node: StoreNode) -> None:
        """SIGSTOP."""

    async def resume(self, node: StoreNode) -> None:
        """SIGCONT."""

    def paused(self, node: StoreNode) -> bool:
        """Whether the operating system says that its process is stopped."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Packets from one address to another are dropped; the other way is another cut.

    Attributes:
        share: of the packets that are dropped, each by chance; 1: all of them.
    """

    source_ip: str
    target_ip: str
    share: float = 1.0


class Partition(Protocol):
    """Packets between addresses can be dropped."""

    async def cut(self, cuts: Sequence[Cut]) -> str:
        """Drops packets from now on; returns the name by which to heal it."""

    async def dropped_packets(self, name: str) -> int:
        """How many packets this partition has dropped."""

    async def heal(self, name: str | None = None) -> None:
        """Lets packets through again: those of one partition, or all."""


class Cable(Protocol):
    """Hosts can be taken off the network, for all others, watchers included."""

    async def unplug(self, host: str) -> None:
        """Takes a host off it; its processes run on and lose every address."""

    async def plug(self, host: str) -> None:
        """Puts it back, with the addresses that it had."""

    def unplugged(self, host: str) -> bool:
        """Whether it is off."""


class Clock(Protocol):
    """Nodes can be given another time."""

    async def shift_clock(self, node: StoreNode, offset_ms: int) -> None:
        """Sets a node's clock so far from the true one; 0 is right again."""

    async def clock_offset_ms(self, node: StoreNode) -> int:
        """How far the node's clock is from the true one, as the node itself tells it."""


class Disk(Protocol):
    """What a data node has on disk can be damaged while it is down."""

    async def empty_disk(self, node: StoreNode) -> None:
        """Removes its data; its configuration stays."""

    async def truncate_log(self, node: StoreNode, tail_bytes: int) -> int:
        """Cuts the end off its append-only file; returns how many bytes went."""

    async def spoil_log(self, node: StoreNode, middle_bytes: int) -> int:
        """Writes zeros over the middle of its append-only file; returns over how many bytes."""


class Power(Protocol):
    """Nodes can lose their power: what they had not synchronized to their disks is gone."""

    async def lose_power(self, nodes: Sequence[StoreNode]) -> dict[str, int]:
        """Ends the nodes at the same moment.

        Returns:
            For each data node, how many bytes of its append-only files went.
        """


class FullDisk(Protocol):
    """A data node's disk can run full."""

    async def fill_disk(self, node: StoreNode) -> None:
        """Leaves no room for another byte, until ``free_disk``."""

    async def free_disk(self, node: StoreNode) -> None:
        """Gives the room back."""

    async def free_disk_bytes(self, node: StoreNode) -> int:
        """How much more the node's disk takes."""
