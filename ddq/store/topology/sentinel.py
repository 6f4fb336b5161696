"""A master with replicas, watched by Sentinels: they name the master, and ROLE confirms it.

No single Sentinel is trusted. Each names a master and the epoch of the failover that made it one;
the newest epoch counts, and before the node is used it has to call itself master. All of this only
finds the node: that a deposed master's answers never leave is the barrier's work.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from math import inf

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from ddq.errors import DdqError, StoreUnreachable
from ddq.store.barrier import ElectionAnswer
from ddq.store.connection import Connection, NotSentError, RedisConnection, Reply
from ddq.store.subscription import subscribed
from ddq.store.topology.base import Listener, Redirect, Replica, SentinelSettings
from ddq.store.topology.election import (
    Ballot,
    Elections,
)
from ddq.store.topology.master import MasterConnection, NotMasterError, ask_role
from ddq.store.topology.node import Node
from ddq.store.topology.refresh import GAP_S, Answers, SharedRefresh, ask_all
from ddq.store.topology.sentinel_report import SentinelReport, ask_ballot, ask_sentinel
from ddq.store.topology.url import StoreUrl

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 5.0
RECHECK_INTERVAL_S = 0.25
RESUBSCRIBE_INTERVAL_S = 1.0
PROBE_TIMEOUT_S = 1.0


class SentinelTopology:
    """See Topology.

    Args:
        url: of kind "sentinel".
        connect, connect_sentinel: make connections to a node and to a Sentinel, without any check;
            given by tests.
    """

    kind = "sentinel"

    def __init__(
        self,
        url: StoreUrl,
        *,
        connect: Callable[[Node], Connection] | None = None,
        connect_sentinel: Callable[[Node], Connection] | None = None,
    ) -> None:
        self._url = url
        self._name = url.master_name
        self._connect = connect or (lambda node: RedisConnection(lambda: url.connection_to(node)))
        self._connect_sentinel = connect_sentinel or (
            lambda node: RedisConnection(lambda: url.connection_to_sentinel(node))
        )
        self._sentinels = {
            node: self._connect_sentinel(node)
            for node in dict.fromkeys(map(url.address_map.reach, url.seeds))
        }
        self._asking = asyncio.Lock()
        self._shared_refresh = SharedRefresh(self._refresh)
        self._listeners: list[Listener] = []
        self._down_after_listeners: list[Callable[[int], None]] = []
        self._elections = Elections()
        self._named_s: dict[Node, float] = {}
        """When each node was last named as master by a majority, in the event loop's time."""
        self._master: Node | None = None
        self._epoch = -1
        self._doubts = itertools.count(1)
        self._doubt = next(self._doubts)
        """Which doubt is not settled yet; 0 when the master is known and well."""
        self._wake = asyncio.Event()

    # Who the master is ---------------------------------------------------------------------

    async def node_of(self, key: str, deadline_s: float) -> Node:  # noqa: ARG002 - see Topology
        """See Topology.node_of."""
        if self._doubt:
            await self._shared_refresh.join(deadline_s)
        assert self._master is not None
        return self._master

    def known_node(self, key: str) -> Node | None:  # noqa: ARG002 - see Topology
        """See Topology.known_node."""
        return self._master

    async def masters(self, deadline_s: float) -> tuple[Node, ...]:
        """See Topology.masters."""
        return (await self.node_of("", deadline_s),)

    async def _refresh(self) -> None:
        doubt = self._doubt
        answers, master, epoch = await self._ask_for_master()
        probe = self._probe(master)
        try:
            while not (await asyncio.wait({probe}, timeout=GAP_S))[0]:
                # It hangs, or is slow: its successor may be named before that is known.
                answers, named, epoch = await self._ask_for_master()
                if named != master:
                    probe.cancel()
                    master, probe = named, self._probe(named)
            await probe
        except NotSentError as error:
            self._raise_doubt()
            if isinstance(error, NotMasterError) and master == self._master:
                self._master = None
                self._tell(master, str(error))
            raise StoreUnreachable(
                f"the master that the Sentinels name cannot be used: {error} ({answers})"
            ) from error
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
        before, epoch_before = self._master, self._epoch
        self._master, self._epoch = master, epoch
        if doubt == self._doubt:
            self._doubt = 0
        if before is not None and before != master:
            self._tell(before, f"the Sentinels name {master} as master")
        elif before is not None and epoch != epoch_before:
            self._tell(before, "it was deposed in between, and is master again")

    async def _ask_for_master(self) -> tuple[Answers[SentinelReport], Node, int]:
        """What the Sentinels say, and the master and epoch that follow from it.

        Raises:
            StoreUnreachable: as _choose.
        """
        asked_s = asyncio.get_running_loop().time()
        answers = await self._ask_sentinels()
        master, epoch = self._choose(answers)
        naming_count = sum(view.master == master for view in answers.given.values())
        if naming_count > len(self._sentinels) // 2:
            # Fewer may be behind, and name a node that was replaced before they were asked.
            self._named_s[master] = asked_s
        return answers, master, epoch

    def _choose(self, answers: Answers[SentinelReport]) -> tuple[Node, int]:
        """The master and its epoch, by what the Sentinels say.

        Raises:
            StoreUnreachable: they do not say, or contradict each other, or know less than before.
        """
        views = {view.run_id: view for view in answers.given.values()}.values()
        if not views:
            raise StoreUnreachable(f"no Sentinel names the master {self._name!r} ({answers})")
        epoch = max(view.epoch for view in views)
        votes = Counter(view.master for view in views if view.epoch == epoch).most_common()
        master, count = votes[0]
        if len(votes) > 1 and votes[1][1] == count:
            raise StoreUnreachable(
                f"the Sentinels name different nodes as master {self._name!r} ({answers}); look at "
                "SENTINEL MASTER on each"
            )
        if epoch < self._epoch and count <= len(self._sentinels) // 2:
            # Sentinels that know better are out of reach. Only most of them together may be right
            # with an older epoch: then they were set up again.
            raise StoreUnreachable(
                f"the Sentinels that answer are behind: epoch {self._epoch} was seen ({answers})"
            )
        return master, epoch

    def _probe(self, node: Node) -> asyncio.Task[None]:
        """Asks the node itself, over a new connection: one that hangs does not answer that."""

        async def probe() -> None:
            connection = self._connect(node)
            try:
                await ask_role(connection, node, PROBE_TIMEOUT_S)
            finally:
                await connection.close()

        return asyncio.create_task(probe(), name=f"ddq role of {node}")

    def _raise_doubt(self) -> None:
        self._doubt = next(self._doubts)

    def look_at(self, node: Node) -> Connection:
        """See Topology.look_at."""
        return self._connect(node)

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """See Topology.suspect."""
        if node == self._master:
            if not self._doubt:
                # Once, and not for each of the requests that met the same.
                log.info(
                    "looking for the master again: %(node)s: %(error)s",
                    {"node": node, "error": error or type(error).__name__},
                )
            self._raise_doubt()
            self._wake.set()

    def redirected(self, source: Node, reply: Reply) -> Redirect | None:  # noqa: ARG002
        """See Topology.redirected."""
        return None

    def on_change(self, listener: Listener) -> None:
        """See Topology.on_change."""
        self._listeners.append(listener)

    def _tell(self, node: Node, reason: str) -> None:
        log.warning(
            "%(node)s is not the master any more: %(reason)s", {"node": node, "reason": reason}
        )
        for listener in self._listeners:
            listener(node, reason)

    # What the Sentinels say ----------------------------------------------------------------

    async def _ask_sentinels(self) -> Answers[SentinelReport]:
        # A connection serves one question at a time.
        async with self._asking:
            answers = await ask_all(
                {node: self._ask(node) for node in self._sentinels},
                enough_count=len(self._sentinels) // 2 + 1,
            )
            if answers.given:
                views = answers.given.values()
                await self._know_sentinels(other for view in views for other in view.others)
                down_after_ms = min(view.settings.down_after_ms for view in views)
                for listener in self._down_after_listeners:
                    listener(down_after_ms)
        return answers

    def _ask(self, sentinel: Node) -> Callable[[], Awaitable[SentinelReport]]:
        connection = self._sentinels[sentinel]
        return lambda: ask_sentinel(connection, sentinel, self._name)

    async def _know_sentinels(self, others: Iterable[Node]) -> None:
        """Those of the URL, and those that they know of, by the address at which one gets there."""
        reach = self._url.address_map.reach
        known = dict.fromkeys(reach(node) for node in (*self._url.seeds, *others))
        for node in self._sentinels.keys() - known.keys():
            await self._sentinels.pop(node).close()
        for node in known.keys() - self._sentinels.keys():
            self._sentinels[node] = self._connect_sentinel(node)

    async def sentinel_settings(self, deadline_s: float) -> tuple[SentinelSettings, ...]:
        """See Topology.sentinel_settings."""
        views = await self._views(deadline_s)
        return tuple(view.settings for view in views)

    async def replicas(self, master: Node, deadline_s: float) -> tuple[Replica, ...]:
        """See Topology.replicas."""
        views = [view for view in await self._views(deadline_s) if view.master == master]
        if not views:
            raise StoreUnreachable(f"no Sentinel names {master} as master {self._name!r}")
        return max(views, key=lambda view: view.epoch).replicas

    async def _views(self, deadline_s: float) -> list[SentinelReport]:
        try:
            async with asyncio.timeout_at(deadline_s):
                answers = await self._ask_sentinels()
        except TimeoutError:
            raise StoreUnreachable("no Sentinel answered before the deadline") from None
        if not answers.given:
            raise StoreUnreachable(f"no Sentinel names the master {self._name!r} ({answers})")
        return list({view.run_id: view for view in answers.given.values()}.values())

    async def elections(self, node: Node, deadline_s: float) -> ElectionAnswer:
        """See Topology.elections."""
        try:
            async with asyncio.timeout_at(deadline_s), self._asking:
                answers = await ask_all(
                    {sentinel: self._ask_ballot(sentinel, node) for sentinel in self._sentinels},
                    enough_count=len(self._sentinels) // 2 + 1,
                )
        except TimeoutError:
            return ElectionAnswer("no Sentinel answered before the deadline", complete=False)
        ballots = {each.run_id: each for each in answers.given.values()}.values()
        answer = self._elections.read(node, list(ballots), len(self._url.seeds))
        missing = {str(sentinel): why for sentinel, why in answers.failures.items()}
        return replace(answer, missing=missing)

    def _ask_ballot(self, sentinel: Node, node: Node) -> Callable[[], Awaitable[Ballot]]:
        connection = self._sentinels[sentinel]
        return lambda: ask_ballot(connection, sentinel, self._name, node)

    def trusted_s(self, node: Node) -> float:
        """See Topology.trusted_s."""
        return max((at_s for named, at_s in self._named_s.items() if named != node), default=-inf)

    def on_down_after(self, listener: Callable[[int], None]) -> None:
        """See Topology.on_down_after."""
        self._down_after_listeners.append(listener)

    # Connections ---------------------------------------------------------------------------

    def connect(self, node: Node) -> Connection:
        """See Topology.connect."""
        return MasterConnection(self._connect(node), node)

    async def subscriber(self, deadline_s: float) -> AbstractConnection:
        """See Topology.subscriber."""
        return self._url.connection_to(await self.node_of("", deadline_s))

    # Watching ------------------------------------------------------------------------------

    async def run(self) -> None:
        """See Topology.run."""
        ears: dict[Node, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                well = await self._check()
                for node in ears.keys() - self._sentinels.keys():
                    ears.pop(node).cancel()
                for node in self._sentinels.keys() - ears.keys():
                    ears[node] = group.create_task(self._hear(node), name=f"ddq sentinel {node}")
                try:
                    async with asyncio.timeout(CHECK_INTERVAL_S if well else RECHECK_INTERVAL_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _check(self) -> bool:
        try:
            await self._shared_refresh.join(asyncio.get_running_loop().time() + CHECK_INTERVAL_S)
        except DdqError as error:
            log.info("no master: %(error)s", {"error": error})
            return False
        return not self._doubt

    async def _hear(self, sentinel: Node) -> None:
        """Takes a Sentinel's word about a failover for what it is: a reason to look."""
        while True:
            try:
                connection = self._url.connection_to_sentinel(sentinel)
                async with subscribed(connection, "+switch-master") as subscription:
                    async for message in subscription:
                        if message.decode().partition(" ")[0] == self._name and self._master:
                            self.suspect(self._master, f"Sentinel says {message.decode()}")
            except (OSError, redis.exceptions.RedisError) as error:
                log.debug(
                    "Sentinel %(sentinel)s cannot be subscribed to: %(error)s",
                    {"sentinel": sentinel, "error": error},
                )
            await asyncio.sleep(RESUBSCRIBE_INTERVAL_S)

    async def close(self) -> None:
        """See Topology.close."""
        await self._shared_refresh.close()
        # A question that is still being asked may change the table meanwhile.
        for connection in list(self._sentinels.values()):
            await connection.close()
