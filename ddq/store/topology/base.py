"""What every topology offers: which node serves a key, and ordered ways to that node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from ddq.store.barrier import ElectionAnswer
from ddq.store.connection import Connection, Reply
from ddq.store.topology.node import Node

Listener = Callable[[Node, str], None]
"""Called with a node that was demoted, and why. Must neither block nor raise."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a Cluster sends a command instead.

    Attributes:
        node: the node to be asked.
        asking: for this one time only: ("ASKING",) has to go directly before the command, in the
            same send. Without it the slot has moved, and the topology knows that by now.
    """

    node: Node
    asking: bool


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as its master, or Sentinel, sees it.

    Attributes:
        online: its link to the master is up.
        priority: for Sentinel's choice; None where the topology does not say.
    """

    node: Node
    online: bool
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """How one Sentinel watches the master.

    Attributes:
        sentinel: whose settings they are.
        down_after_ms: without an answer for so long, the master is down to this Sentinel.
        failover_timeout_ms: twice that costs a Sentinel that dies while it leads a failover.
        quorum: how many Sentinels have to agree that it is down.
        sentinels_count: how many Sentinels this one knows, itself included.
        config_epoch: of the failover that made the present master one.
    """

    sentinel: Node
    down_after_ms: int
    failover_timeout_ms: int
    quorum: int
    sentinels_count: int
    config_epoch: int


class Topology(Protocol):
    """The store's nodes, and which of them serves a key.

    A deadline is in the event loop's time, in seconds. Nothing here runs scripts, and nothing is
    repeated behind the caller's back.
    """

    @property
    def kind(self) -> str:
        """ "single", "sentinel" or "cluster"."""

    async def node_of(self, key: str, deadline_s: float) -> Node:
        """The master that serves a key now; looks for it when it is not known, or suspected.

        Raises:
            StoreUnreachable: it cannot be found; the message names the nodes that were asked, and
                their answers.
        """

    def known_node(self, key: str) -> Node | None:
        """The master of a key as far as it is known, without a question; None if it is not.

        For distributing work over nodes, never to decide where a command goes.
        """

    async def masters(self, deadline_s: float) -> tuple[Node, ...]:
        """Every master, in a stable order.

        Raises:
            StoreUnreachable: as node_of.
        """

    async def replicas(self, master: Node, deadline_s: float) -> tuple[Replica, ...]:
        """The replicas of one master.

        Raises:
            StoreUnreachable: no node could say.
        """

    async def sentinel_settings(self, deadline_s: float) -> tuple[SentinelSettings, ...]:
        """The settings of each Sentinel that answers; empty where there is none.

        Raises:
            StoreUnreachable: no Sentinel answers.
        """

    async def elections(self, node: Node, deadline_s: float) -> ElectionAnswer:
        """Whether an election that would replace this master may be under way.

        Without Sentinels there is none: a single server is never replaced, and in a Cluster QUORUM
        claims the crash of one node, which does not return before its replica has taken over
        (ADR 018).
        """

    def trusted_s(self, node: Node) -> float:
        """When another node than this one was last named as master, in the event loop's time.

        Until then this node's silence could not begin an election; -inf: not known.
        """

    def on_down_after(self, listener: Callable[[int], None]) -> None:
        """Calls ``listener`` with the smallest down-after in use, in ms, whenever it is read."""

    def connect(self, node: Node) -> Connection:
        """A connection of its own, opened at its first send.

        Whenever it opens it asks ROLE first, and raises NotSentError if that is not a master's.
        """

    def look_at(self, node: Node) -> Connection:
        """A connection to any node, a replica too, without a look at its role: to read settings."""

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """Something went wrong there: look again before it is used next.

        For READONLY, a lost connection, an answer that did not come in time, a barrier that came
        up short. Cheap, and harmless if the node is well.
        """

    def redirected(self, source: Node, reply: Reply) -> Redirect | None:
        """Where a reply of ``source`` sends its command; None if the reply is not a redirect."""

    def on_change(self, listener: Listener) -> None:
        """``listener`` is called with each node that was demoted.

        Connections to it have to be closed: after a demotion and a new promotion an old one would
        guarantee writes that are lost.
        """

    async def subscriber(self, deadline_s: float) -> AbstractConnection:
        """A connection, not yet opened, on which to subscribe to hints.

        Raises:
            StoreUnreachable: as node_of.
        """

    async def run(self) -> None:
        """Watches for changes until cancelled."""

    async def close(self) -> None:
        """Closes the topology's own connections; those of connect() belong to their callers."""


_ROLE_LOST = ("READONLY", "MASTERDOWN", "UNBLOCKED", "CLUSTERDOWN", "NOREPLICAS")


def info_fields(reply: bytes) -> dict[str, str]:
    """The fields of INFO or CLUSTER INFO, by name."""
    lines = reply.decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def is_lost_role(reply: Reply) -> bool:
    """Whether an error reply is a reason to suspect the node that gave it.

    The driver strips the word from some messages, and has a class instead.
    """
    if isinstance(
        reply,
        redis.exceptions.ReadOnlyError
        | redis.exceptions.MasterDownError
        | redis.exceptions.ClusterDownError,
    ):
        return True
    return isinstance(reply, redis.exceptions.ResponseError) and any(
        word in str(reply) for word in (*_ROLE_LOST, "WAIT cannot be used with replica")
    )
