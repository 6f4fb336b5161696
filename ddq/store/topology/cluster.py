"""A Cluster: every key belongs to a slot, every slot to a master, and both may move.

The slot map comes from the nodes themselves, several at a time: one that is cut off tells an old
one. In between, each MOVED corrects it by the slot that it is about.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from ddq.errors import DdqError, StoreUnreachable
from ddq.store.barrier import NO_ELECTIONS, ElectionAnswer
from ddq.store.connection import Connection, RedisConnection, Reply
from ddq.store.topology.base import (
    Listener,
    Redirect,
    Replica,
    SentinelSettings,
)
from ddq.store.topology.cluster_report import ClusterReport, ask_node
from ddq.store.topology.master import MasterConnection, ask_role
from ddq.store.topology.node import Node
from ddq.store.topology.refresh import GAP_S, SharedRefresh, ask_all
from ddq.store.topology.single import replicas_by_role
from ddq.store.topology.url import StoreUrl

log = logging.getLogger(__name__)

ASKED_COUNT = 5
CHECK_INTERVAL_S = 5.0
RECHECK_INTERVAL_S = 0.25
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class _Suspicion:
    """One report that something is wrong with a node; equal only to itself."""

    reason: str


class ClusterTopology:
    """See Topology.

    Args:
        url: of kind "cluster".
        connect: makes connections to a node, without any check; given by tests.
    """

    kind = "cluster"

    def __init__(
        self, url: StoreUrl, *, connect: Callable[[Node], Connection] | None = None
    ) -> None:
        self._url = url
        self._connect = connect or (lambda node: RedisConnection(lambda: url.connection_to(node)))
        self._shared_refresh = SharedRefresh(self._refresh)
        self._listeners: list[Listener] = []
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._epochs: dict[Node, int] = {}
        """The masters, each with the epoch of its mastery."""
        self._epoch = -1
        self._given: set[Node] = set()
        """Masters that redirects have named for further slots since the last check."""
        self._replicas: tuple[Node, ...] = ()
        self._said = ""
        self._suspects: dict[Node, _Suspicion] = {}
        self._turn = itertools.count()
        self._wake = asyncio.Event()

    # Which node serves a key ---------------------------------------------------------------

    async def node_of(self, key: str, deadline_s: float) -> Node:
        """See Topology.node_of."""
        slot = key_slot(key.encode())
        node = self._slots[slot]
        if node is None or node in self._suspects:
            await self._shared_refresh.join(deadline_s)
            node = self._slots[slot]
        if node is None:
            raise StoreUnreachable(f"no node of the Cluster serves slot {slot} ({self._said})")
        if node in self._suspects:
            reason = self._suspects[node].reason
            raise StoreUnreachable(f"the master of slot {slot} is away: {reason}")
        return node

    def known_node(self, key: str) -> Node | None:
        """See Topology.known_node."""
        return self._slots[key_slot(key.encode())]

    async def masters(self, deadline_s: float) -> tuple[Node, ...]:
        """See Topology.masters."""
        if not self._epochs:
            await self._shared_refresh.join(deadline_s)
        return tuple(sorted(self._epochs))

    async def replicas(self, master: Node, deadline_s: float) -> tuple[Replica, ...]:
        """See Topology.replicas."""
        return await replicas_by_role(self._connect(master), master, deadline_s)

    async def sentinel_settings(
        self,
        deadline_s: float,  # noqa: ARG002 - see Topology
    ) -> tuple[SentinelSettings, ...]:
        """See Topology.sentinel_settings."""
        return ()

    def redirected(self, source: Node, reply: Reply) -> Redirect | None:
        """See Topology.redirected."""
        if not isinstance(reply, redis.exceptions.AskError):
            return None
        # A node whose own address it does not know means: where you asked me, at this port.
        node = Node(reply.host or source.host, reply.port)
        if not isinstance(reply, redis.exceptions.MovedError):
            return Redirect(node, asking=True)
        self._slots[reply.slot_id] = node
        if source in self._epochs and node in self._epochs:
            # From one master to another. Were either none before, it would be a failover.
            self._given.add(node)
        self._wake.set()
        return Redirect(node, asking=False)

    # Looking -------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        suspects = dict(self._suspects)
        await self._ask_nodes()
        masters = [node for node in suspects if node in self._epochs]
        probes = asyncio.create_task(
            ask_all({node: self._probe(node) for node in masters}, len(masters)),
            name="ddq roles of suspects",
        )
        try:
            while not (await asyncio.wait({probes}, timeout=GAP_S))[0]:
                # One hangs, or is slow: the others may depose it before that is known.
                await self._ask_nodes()
                if not self._epochs.keys() & {*masters}:
                    break
            failures = probes.result().failures if probes.done() else {}
        finally:
            probes.cancel()
            await asyncio.gather(probes, return_exceptions=True)
        for node, suspicion in suspects.items():
            # Suspected once more in the meantime, it stays so until the next look; also if the
            # reason was the same.
            if self._suspects.get(node) is suspicion:
                del self._suspects[node]
        self._suspects |= {
            node: _Suspicion(reason) for node, reason in failures.items() if node in self._epochs
        }

    async def _ask_nodes(self) -> None:
        """Brings the map up to date.

        Raises:
            StoreUnreachable: no node answers, or none that knows what was known before.
        """
        asked = self._asked()
        enough_count = len(asked) // 2 + 1
        answers = await ask_all({node: self._ask(node) for node in asked}, enough_count)
        if not answers.given:
            raise StoreUnreachable(f"no node of the Cluster answers ({answers})")
        view = max(answers.given.values(), key=lambda view: (view.ok, view.epoch, view.slots_count))
        if view.epoch < self._epoch and not (view.ok and len(answers.given) >= enough_count):
            # They are cut off from the rest. An older epoch is right only in a recreated Cluster.
            raise StoreUnreachable(
                f"the nodes that answer are behind: epoch {self._epoch} was seen ({answers})"
            )
        self._said = str(answers)
        self._adopt(view)

    def _adopt(self, view: ClusterReport) -> None:
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for found in view.ranges:
            slots[found.first : found.last + 1] = [found.master] * (found.last + 1 - found.first)
        # A slot that moves to a node gives it a new epoch too, and it was master all the time.
        grown = {now for old, now in zip(self._slots, slots, strict=True) if old != now}
        grown |= self._given
        self._given.clear()
        before, self._epochs = self._epochs, dict(view.mastery_epochs)
        self._slots, self._epoch = slots, view.epoch
        self._replicas = tuple(node for found in view.ranges for node in found.replicas)
        for node, epoch in before.items():
            if node not in self._epochs:
                self._suspects.pop(node, None)
                self._tell(node, "the Cluster names it no master")
            elif self._epochs[node] != epoch and node not in grown:
                self._tell(node, "it was deposed in between, and is master again")

    def _asked(self) -> list[Node]:
        """Some of those known, others each time, so that dead ones do not hide the rest."""
        known = list(dict.fromkeys((*sorted(self._epochs), *self._url.seeds, *self._replicas)))
        start = next(self._turn) * ASKED_COUNT % len(known)
        return (known[start:] + known[:start])[:ASKED_COUNT]

    def _ask(self, node: Node) -> Callable[[], Any]:
        async def ask() -> ClusterReport:
            connection = self._connect(node)
            try:
                return await ask_node(connection, node)
            finally:
                await connection.close()

        return ask

    def _probe(self, node: Node) -> Callable[[], Any]:
        async def probe() -> None:
            connection = self._connect(node)
            try:
                await ask_role(connection, node, PROBE_TIMEOUT_S)
            finally:
                await connection.close()

        return probe

    def look_at(self, node: Node) -> Connection:
        """See Topology.look_at."""
        return self._connect(node)

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """See Topology.suspect."""
        if node in self._epochs or node in self._slots:
            log.info(
                "looking at the Cluster again: %(node)s: %(error)s",
                {"node": node, "error": error or type(error).__name__},
            )
            self._suspects[node] = _Suspicion(f"{node}: {str(error) or type(error).__name__}")
            self._wake.set()

    def on_change(self, listener: Listener) -> None:
        """See Topology.on_change."""
        self._listeners.append(listener)

    def _tell(self, node: Node, reason: str) -> None:
        log.warning("%(node)s lost its mastership: %(reason)s", {"node": node, "reason": reason})
        for listener in self._listeners:
            listener(node, reason)

    # Connections ---------------------------------------------------------------------------

    async def elections(self, node: Node, deadline_s: float) -> ElectionAnswer:  # noqa: ARG002
        """See Topology.elections."""
        return NO_ELECTIONS

    def trusted_s(self, node: Node) -> float:  # noqa: ARG002
        """See Topology.trusted_s."""
        return float("-inf")

    def on_down_after(self, listener: Callable[[int], None]) -> None:
        """See Topology.on_down_after; the node time-out is read with the store's settings."""

    def connect(self, node: Node) -> Connection:
        """See Topology.connect."""
        return MasterConnection(self._connect(node), node)

    async def subscriber(self, deadline_s: float) -> AbstractConnection:
        """See Topology.subscriber; any master will do, and each time it is another one."""
        masters = await self.masters(deadline_s)
        well = [node for node in masters if node not in self._suspects] or masters
        return self._url.connection_to(well[next(self._turn) % len(well)])

    # Watching ------------------------------------------------------------------------------

    async def run(self) -> None:
        """See Topology.run."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                await self._shared_refresh.join(loop.time() + CHECK_INTERVAL_S)
            except DdqError as error:
                self._said = str(error)
                log.info("the Cluster cannot be looked at: %(error)s", {"error": error})
            well = self._epochs and not self._suspects and None not in self._slots
            try:
                async with asyncio.timeout(CHECK_INTERVAL_S if well else RECHECK_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """See Topology.close."""
        await self._shared_refresh.close()
