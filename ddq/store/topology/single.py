"""One node, always the same: a server, or the embedded store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from redis.asyncio.connection import AbstractConnection

from ddq.errors import StoreUnreachable
from ddq.store.barrier import NO_ELECTIONS, ElectionAnswer
from ddq.store.connection import Command, Connection, NotSentError, RedisConnection, Reply
from ddq.store.topology.base import Listener, Redirect, Replica, SentinelSettings
from ddq.store.topology.master import MasterConnection, ask_role
from ddq.store.topology.node import Node


class SingleTopology:
    """See Topology.

    Args:
        node: the only one.
        make: makes connections to it, not yet opened, that never retry by themselves.
    """

    kind = "single"

    def __init__(self, node: Node, make: Callable[[], AbstractConnection]) -> None:
        self._node = node
        self._make = make

    async def node_of(self, key: str, deadline_s: float) -> Node:  # noqa: ARG002 - see Topology
        """See Topology.node_of."""
        return self._node

    def known_node(self, key: str) -> Node | None:  # noqa: ARG002 - see Topology
        """See Topology.known_node."""
        return self._node

    async def masters(self, deadline_s: float) -> tuple[Node, ...]:  # noqa: ARG002
        """See Topology.masters."""
        return (self._node,)

    async def replicas(self, master: Node, deadline_s: float) -> tuple[Replica, ...]:
        """See Topology.replicas."""
        connection = RedisConnection(self._make)
        try:
            timeout_s = deadline_s - asyncio.get_running_loop().time()
            role = await ask_role(connection, master, timeout_s)
        except NotSentError as error:
            # It is the only node. If it does not answer, the store is away.
            raise StoreUnreachable(str(error)) from error
        finally:
            await connection.close()
        return _replicas(role)

    async def sentinel_settings(
        self,
        deadline_s: float,  # noqa: ARG002
    ) -> tuple[SentinelSettings, ...]:
        """See Topology.sentinel_settings."""
        return ()

    async def elections(self, node: Node, deadline_s: float) -> ElectionAnswer:  # noqa: ARG002
        """See Topology.elections."""
        return NO_ELECTIONS

    def trusted_s(self, node: Node) -> float:  # noqa: ARG002
        """See Topology.trusted_s."""
        return float("-inf")

    def on_down_after(self, listener: Callable[[int], None]) -> None:
        """See Topology.on_down_after; no Sentinel has one."""

    def connect(self, node: Node) -> Connection:
        """See Topology.connect."""
        return MasterConnection(RedisConnection(self._make), node)

    def look_at(self, node: Node) -> Connection:
        """See Topology.look_at; of several nodes only the one is known how to reach."""
        if node == self._node:
            return RedisConnection(self._make)
        return UnreachableConnection(f"there is no URL for {node}")

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """See Topology.suspect; there is no other node to look for."""

    def redirected(self, source: Node, reply: Reply) -> Redirect | None:  # noqa: ARG002
        """See Topology.redirected."""
        return None

    def on_change(self, listener: Listener) -> None:
        """See Topology.on_change; nothing ever changes."""

    async def subscriber(self, deadline_s: float) -> AbstractConnection:  # noqa: ARG002
        """See Topology.subscriber."""
        return self._make()

    async def run(self) -> None:
        """See Topology.run."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """See Topology.close."""


class UnreachableConnection:
    """A Connection to a node without a known address."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:  # noqa: ARG002
        """See Connection.send."""
        raise NotSentError(self._reason)

    async def close(self) -> None:
        """See Connection.close."""


async def replicas_by_role(
    connection: Connection, master: Node, deadline_s: float
) -> tuple[Replica, ...]:
    """The replicas that a master's ROLE names; closes the connection.

    Raises:
        StoreUnreachable: it does not answer, or is not a master.
    """
    try:
        timeout_s = deadline_s - asyncio.get_running_loop().time()
        role = await ask_role(connection, master, timeout_s)
    except NotSentError as error:
        raise StoreUnreachable(f"the replicas of {master} are not known: {error}") from error
    finally:
        await connection.close()
    return _replicas(role)


def _replicas(role: Sequence[Reply]) -> tuple[Replica, ...]:
    """Those that a master's answer to ROLE names."""
    _, _, replicas = role
    return tuple(
        Replica(Node(host.decode(), int(port)), online=True) for host, port, _offset in replicas
    )
