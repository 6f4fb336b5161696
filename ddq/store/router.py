"""From a script's keys to the store connection that runs it: one per node and durability.

Each is a group commit of its own: FAST requests do not wait behind a barrier, and the chain of
barriers that QUORUM rests on is one connection's. The connections to a demoted node are closed at
once: after another promotion an old connection would guarantee writes that are lost. Requests that
they had not sent yet go to the new master.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from ddq.config import MS_PER_SECOND, Settings
from ddq.errors import StoreUnreachable
from ddq.metrics import Metrics
from ddq.store.barrier import FAST, Barrier, DataNodes, Policy, Timing
from ddq.store.commit import ConnectionRetiredError, GroupCommit
from ddq.store.metered import MeteredConnection
from ddq.store.pending import Argument, Committed
from ddq.store.script_errors import NotHereError
from ddq.store.scripts import Script
from ddq.store.topology import Node, Topology

log = logging.getLogger(__name__)

MIGRATION_PAUSE_S = 0.05
"""A slot that is on its way is asked for again after this long."""
MOVES_AT_ONCE_COUNT = 2


ConnectionKey = tuple[Node, Barrier]


class SlotMovingError(StoreUnreachable):
    """The keys' slot is being moved to another master, and the call does not wait for it.

    A scheduler tells it from other causes; a client sees STORE_UNREACHABLE.
    """


class Router:
    """Runs scripts wherever their keys are.

    Args:
        nodes: the configured data nodes of each master.
        timing: of the chain of barriers; may be set later, before the first request in QUORUM.
    """

    def __init__(
        self,
        topology: Topology,
        scripts: Mapping[str, Script],
        settings: Settings,
        nodes: DataNodes,
        timing: Timing,
        metrics: Metrics,
    ) -> None:
        self.topology = topology
        self.nodes = nodes
        self.timing = timing
        self._metrics = metrics
        metrics.held.set_function(
            lambda: sum(connection.unconfirmed_count for connection in self._connections.values())
        )
        self._heartbeat = scripts["heartbeat"]
        self._settings = settings
        # Replaced, and never changed in place: Prometheus reads it in a thread of its own.
        self._connections: Mapping[ConnectionKey, GroupCommit] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        topology.on_change(self._retire)
        topology.on_down_after(self._narrow)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        deadline_s: float,
        barrier: Barrier = FAST,
        *,
        waits_for_slot: bool = True,
    ) -> Committed:
        """Runs one script; see GroupCommit.run.

        Args:
            waits_for_slot: try again until the deadline while the keys' slot is being moved.

        Raises:
            StoreUnreachable: it had no effect; no master serves its keys now.
            SlotMovingError: it had no effect; ``waits_for_slot`` is false.
            DdqError: as GroupCommit.run.
        """
        moves = 0
        while True:
            node = await self.topology.node_of(keys[0], deadline_s)
            connection = self._connection(node, barrier)
            try:
                return await connection.run(script, keys, args, deadline_s)
            except ConnectionRetiredError:
                # Another request may have opened a new one in its place.
                self._drop(node, barrier, connection)
            except NotHereError as error:
                redirect = self.topology.redirected(node, error.reply)
                if redirect is not None and not redirect.asking and node != redirect.node:
                    # At once, the first time: the map knows better now. Two nodes that point at
                    # each other are not asked without end.
                    moves += 1
                    if moves <= MOVES_AT_ONCE_COUNT:
                        continue
                # A slot that is on its way is nowhere as a whole: a script needs all its keys.
                if not waits_for_slot:
                    raise SlotMovingError(
                        f"{script.name} was not run: its slot is being moved ({error})"
                    ) from None
                await self._pause(deadline_s, script, error)

    async def _pause(self, deadline_s: float, script: Script, error: NotHereError) -> None:
        if asyncio.get_running_loop().time() + MIGRATION_PAUSE_S >= deadline_s:
            raise StoreUnreachable(f"{script.name} was not run before the deadline: {error}")
        await asyncio.sleep(MIGRATION_PAUSE_S)

    def keep_time(self, timing: Timing | None, *, may_widen: bool = True) -> None:
        """Chains follow this timing from now on; those that are open start again.

        Args:
            timing: None: the store does not say.
            may_widen: whether a longer window is accepted. While the store's settings are in
                doubt, it is not: some Sentinel may replace the master after the shorter time.
        """
        if timing is None or timing == self.timing:
            return
        if timing.window_s > self.timing.window_s and not may_widen:
            return
        self.timing = timing
        for node in {node for node, _ in self._connections}:
            self._close_connections(node)

    def _narrow(self, down_after_ms: int) -> None:
        """A Sentinel considers a master down sooner than was known."""
        self.keep_time(Timing.of(down_after_ms / MS_PER_SECOND), may_widen=False)

    def connections(self) -> Mapping[ConnectionKey, GroupCommit]:
        """Those that are open, to look at."""
        return self._connections

    async def close(self) -> None:
        """Closes every connection, and the topology; waiting requests get StoreUnreachable."""
        self._closed = True
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*(connection.close() for connection in connections), *self._closing)
        await self.topology.close()

    def _drop(self, node: Node, barrier: Barrier, connection: GroupCommit) -> None:
        """Removes one connection, if it is still the one of its key."""
        if self._connections.get((node, barrier)) is connection:
            self._connections = {
                key: other for key, other in self._connections.items() if other is not connection
            }

    def _connection(self, node: Node, barrier: Barrier) -> GroupCommit:
        if self._closed:
            raise StoreUnreachable("the connections to the store are closed: the process is ending")
        connection = self._connections.get((node, barrier))
        if connection is None:
            settings = self._settings
            policy = Policy(barrier.mode, barrier.fsync, self.nodes, self.timing)
            connection = GroupCommit(
                MeteredConnection(self.topology.connect(node), self._metrics),
                settings.store_timeout_ms / MS_PER_SECOND,
                settings.store_queue_max_count,
                policy,
                queue_max_bytes=settings.store_queue_max_bytes,
                heartbeat=self._heartbeat,
                keep_s=settings.barrier_keep_ms / MS_PER_SECOND,
                on_trouble=lambda reason: self.topology.suspect(node, reason),
                on_break=self._metrics.chain_breaks.inc,
                on_held=self._metrics.held_seconds.observe,
                ask_elections=lambda deadline_s: self.topology.elections(node, deadline_s),
                trusted_s=self.topology.trusted_s(node),
            )
            self._connections = {**self._connections, (node, barrier): connection}
        return connection

    def _retire(self, node: Node, reason: str) -> None:
        log.warning(
            "%(node)s is no longer used as a master: %(reason)s", {"node": node, "reason": reason}
        )
        self._metrics.masters_lost.inc()
        self._close_connections(node)

    def _close_connections(self, node: Node) -> None:
        closing = [connection for (of, _), connection in self._connections.items() if of == node]
        self._connections = {
            key: connection for key, connection in self._connections.items() if key[0] != node
        }
        for connection in closing:
            task = asyncio.create_task(connection.close(), name="ddq connection closes")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
