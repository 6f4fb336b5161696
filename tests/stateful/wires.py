"""The lower seam of a simulation: connections whose every command waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ddq.store.barrier import ElectionAnswer
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.topology import Node as StoreNode
from tests.stateful.cluster import Cluster, Node


class Network(Protocol):
    """Where connections lead, and the commands that wait on them."""

    cluster: Cluster
    stops: list[Stop]
    wires: list[Wire]

    def connect(self) -> Node:
        """The node to which a new connection leads."""

    def elections(self, process: str) -> ElectionAnswer:
        """The Sentinels' answer about the node to which a process is connected."""


@dataclass(eq=False)
class Stop:
    """A command that waits for its turn."""

    process: str
    command: Command
    node: Node
    done: asyncio.Future[Reply]
    connection: Wire
    lost: bool = False
    until_s: float = 0.0


class WireTopology:
    """One node by name; the network decides where a connection to it leads."""

    kind = "single"

    def __init__(self, network: Network, process: str) -> None:
        self._network = network
        self._process = process

    async def node_of(self, key: str, deadline_s: float) -> StoreNode:
        """See Topology.node_of."""
        return StoreNode("the store")

    async def elections(self, node: StoreNode, deadline_s: float) -> ElectionAnswer:
        """See Topology.elections."""
        return self._network.elections(self._process)

    def trusted_s(self, node: StoreNode) -> float:
        """See Topology.trusted_s."""
        return float("-inf")

    def on_down_after(self, listener: Any) -> None:
        """See Topology.on_down_after: it never changes."""

    def known_node(self, key: str) -> StoreNode:
        """See Topology.known_node."""
        return StoreNode("the store")

    def connect(self, node: StoreNode) -> Wire:
        """See Topology.connect."""
        wire = Wire(self._network, self._process)
        self._network.wires.append(wire)
        return wire

    def suspect(self, node: StoreNode, error: BaseException | str) -> None:
        """See Topology.suspect."""

    def redirected(self, source: StoreNode, reply: Reply) -> None:
        """See Topology.redirected."""

    def on_change(self, listener: Any) -> None:
        """See Topology.on_change: a connection to the deposed master breaks by itself."""

    async def close(self) -> None:
        """See Topology.close."""


class Wire:
    """The lower seam: each command of a send is a stop of its own."""

    def __init__(self, network: Network, process: str) -> None:
        self._network = network
        self.process = process
        self.node: Node | None = None
        self._dead = False
        self.position = 0

    def die(self, node: Node) -> None:
        """The node closes its connections; who uses one learns of it at the next send."""
        self._dead = self._dead or self.node is node

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See ddq.store.connection.Connection."""
        if self._dead:
            await self.close()
            raise ReplyLostError("the connection was reset")
        if self.node is None:
            self.node = self._network.connect()
        replies: list[Reply] = []
        sent = False
        try:
            async with asyncio.timeout(timeout_s):
                for command in commands:
                    if command[0] == "ROLE":
                        # Together with the WAIT before it: a replica that leaves in between makes
                        # the answer more careful, never less.
                        replies.append(self._network.cluster.role(self.node))
                        continue
                    stop = Stop(
                        self.process,
                        command,
                        self.node,
                        asyncio.get_running_loop().create_future(),
                        self,
                    )
                    if command[0] == "WAIT":
                        loop = asyncio.get_running_loop()
                        wait_s = int(command[2]) / 1_000
                        stop.until_s = loop.time() + wait_s
                        loop.call_later(wait_s, nothing)
                    self._network.stops.append(stop)
                    try:
                        sent = True
                        replies.append(await stop.done)
                    finally:
                        if stop in self._network.stops:
                            self._network.stops.remove(stop)
        except (TimeoutError, ConnectionError) as error:
            await self.close()
            if sent:
                raise ReplyLostError(str(error) or "timed out") from error
            raise NotSentError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        return replies

    async def close(self) -> None:
        """The next send connects again."""
        self.node = None
        self._dead = False
        self.position = 0


def nothing() -> None:
    """What a timer does that only time has to wait for."""
