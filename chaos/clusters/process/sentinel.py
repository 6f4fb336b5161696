"""Hosts with a data node and a Sentinel each."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from chaos.clusters import ClusterError, NodeKind, StoreNode
from chaos.clusters.process.nodes import BASE_CONFIG, DATA_PORT, SENTINEL_PORT, ProcessCluster
from chaos.clusters.resp import ReplyError, as_info, as_list, as_pairs, as_text
from chaos.eventually import NotYetError

MASTER_NAME = "mymaster"
# An old master is demoted after four hellos, and what a node is comes from INFO.
FAST_PERIODS_MS = {"INFO-PERIOD": 500, "PUBLISH-PERIOD": 250}


class SentinelCluster(ProcessCluster):
    """A master with its replicas, watched by Sentinels.

    Args:
        data_nodes: how many there are by configuration; the first starts as master.
        sentinels: how many; one a host, beside the data node.
        down_after_ms: when a Sentinel takes a silent node for down.
        failover_timeout_ms: Sentinel's; one that dies while leading costs twice that.
        sentinel_periods_ms: Sentinel's own, as SENTINEL DEBUG takes them. How long a returning
            master may take writes follows from them (8 to 10 s), so a run that looks for what is
            lost leaves them alone; ``FAST_PERIODS_MS`` is for tests of other things.
        appendfsync: always, everysec or no.
        options: further settings of each data node, by the node's name or ``*`` for all.
        bootstrap: start a new cluster as an operator does: the Sentinels know only the first node,
            and each data node goes through ``ddq node``. Slower than what is written down for all.
        node_flags: further flags of ``ddq node``.
        unconfigured: one replica more than configured, attached to the first master.
        folder, server, clocks, disk_bytes, power: see ProcessCluster.
    """

    def __init__(
        self,
        *,
        data_nodes: int = 3,
        sentinels: int = 3,
        down_after_ms: int = 1_000,
        failover_timeout_ms: int = 10_000,
        sentinel_periods_ms: Mapping[str, int] | None = None,
        appendfsync: str = "everysec",
        options: Mapping[str, Mapping[str, str]] | None = None,
        bootstrap: bool = False,
        node_flags: Sequence[str] = (),
        unconfigured: bool = False,
        folder: Path | None = None,
        server: Path | None = None,
        clocks: bool = False,
        disk_bytes: int | None = None,
        power: bool = False,
    ) -> None:
        super().__init__(
            folder=folder, server=server, clocks=clocks, disk_bytes=disk_bytes, power=power
        )
        self.down_after_ms = down_after_ms
        self.failover_timeout_ms = failover_timeout_ms
        self._sentinel_periods_ms = sentinel_periods_ms or {}
        self._bootstrap = bootstrap
        self._node_flags = node_flags
        self._appendfsync = appendfsync
        self._options = options or {}
        self.data = [self._data_node(n) for n in range(1, data_nodes + 1)]
        self.sentinels = [
            StoreNode(f"s{n}", NodeKind.SENTINEL, f"h{n}", self.net.ip(20 + n), SENTINEL_PORT)
            for n in range(1, sentinels + 1)
        ]
        self.unconfigured = [self._data_node(data_nodes + 1)] if unconfigured else []

    def _data_node(self, n: int) -> StoreNode:
        return StoreNode(f"d{n}", NodeKind.DATA, f"h{n}", self.net.ip(10 + n), DATA_PORT)

    @property
    def nodes(self) -> Sequence[StoreNode]:
        return [*self.data, *self.unconfigured, *self.sentinels]

    def group(self, node: StoreNode) -> Sequence[StoreNode]:  # noqa: ARG002
        """All of them: there is one master."""
        return self.data

    @property
    def quorum(self) -> int:
        """How many Sentinels make a majority."""
        return len(self.sentinels) // 2 + 1

    @property
    def store_url(self) -> str:
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"sentinel://{hosts}/{MASTER_NAME}"

    @property
    def data_nodes(self) -> str:
        return ",".join(node.address for node in self.data)

    async def _start(self) -> None:
        """The data nodes, and the Sentinels once the replicas are in sync."""
        first, *others = [*self.data, *self.unconfigured]
        if self._bootstrap:
            await self._start_by_bootstrap(first, others)
        else:
            await self._start_in_place(first, others)
        await self.until_sentinels_agree()

    async def _start_in_place(self, first: StoreNode, others: Sequence[StoreNode]) -> None:
        self.write_config(first, self._data_config(first))
        await self.launch(first)
        # A replica that finds no master tries again only after a second.
        await self.until(lambda: self.answers(first), 20.0, f"{first.name} does not answer")
        for node in others:
            lines = [*self._data_config(node), f"replicaof {first.ip} {first.port}"]
            self.write_config(node, lines)
            await self.launch(node)
        await self.until(lambda: self.in_sync(first, others), 20.0, "the replicas are not in sync")
        for sentinel in self.sentinels:
            self.write_config(sentinel, self._sentinel_config(sentinel, first, others))
            await self.launch(sentinel)
        await self._set_periods()

    async def _start_by_bootstrap(self, first: StoreNode, others: Sequence[StoreNode]) -> None:
        for sentinel in self.sentinels:
            self.write_config(sentinel, self._sentinel_config(sentinel, first, None))
            await self.launch(sentinel)
        await self._set_periods()
        for node in (first, *others):
            self.write_config(node, self._data_config(node))
            await self.restart(node)
        await self.until(lambda: self.in_sync(first, others), 20.0, "the replicas are not in sync")

    def entrypoint(self, node: StoreNode) -> Sequence[str] | None:
        """``ddq node`` for a data node."""
        if node.kind is not NodeKind.DATA:
            return None
        return [
            str(Path(sys.executable).parent / "ddq"),
            "node",
            *(["--bootstrap"] if self._bootstrap and node == self.data[0] else []),
            *self._node_flags,
            "--data",
            str(self.config(node).parent),
            "--config",
            str(self.template(node)),
            "--server",
            str(self.server),
            "--announce",
            node.address,
            "--sentinels",
            ",".join(sentinel.address for sentinel in self.sentinels),
            "--master-name",
            MASTER_NAME,
        ]

    def _data_config(self, node: StoreNode) -> list[str]:
        settings = {
            **BASE_CONFIG,
            "appendfsync": self._appendfsync,
            # A majority less one: as many as the master needs beside itself.
            "min-replicas-to-write": str(len(self.data) // 2),
            **self._options.get("*", {}),
            **self._options.get(node.name, {}),
        }
        return [f"{name} {value}" for name, value in settings.items()]

    def _sentinel_config(
        self, own: StoreNode, master: StoreNode, replicas: Sequence[StoreNode] | None
    ) -> list[str]:
        """With all others in it if the replicas are given: hellos and INFO take ten seconds."""
        name = MASTER_NAME
        known = [
            *(f"sentinel known-replica {name} {node.ip} {node.port}" for node in replicas or ()),
            *(
                f"sentinel known-sentinel {name} {node.ip} {node.port} {_sentinel_id(node)}"
                for node in self.sentinels
                if node != own
            ),
        ]
        return [
            "protected-mode no",
            "daemonize no",
            "sentinel resolve-hostnames no",
            f"sentinel myid {_sentinel_id(own)}",
            f"sentinel monitor {name} {master.ip} {master.port} {self.quorum}",
            f"sentinel down-after-milliseconds {name} {self.down_after_ms}",
            f"sentinel failover-timeout {name} {self.failover_timeout_ms}",
            *(known if replicas is not None else ()),
        ]

    async def set_down_after(self, down_after_ms: int) -> None:
        """Changes when the Sentinels take a silent node for down."""
        words = ("SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds", str(down_after_ms))
        for sentinel in self.sentinels:
            await self.command(sentinel, *words)
        self.down_after_ms = down_after_ms

    async def attach_unconfigured(self) -> StoreNode:
        """Starts one more replica of the present master; returns when it is in sync."""
        master = await self.master()
        node = self._data_node(len(self.data) + len(self.unconfigured) + 1)
        self.unconfigured.append(node)
        lines = [*self._data_config(node), f"replicaof {master.ip} {master.port}"]
        self.write_config(node, lines)
        await self.launch(node)
        await self.wait_until_in_sync()
        return node

    async def detach_unconfigured(self, node: StoreNode) -> None:
        """Ends it; the Sentinels still remember it as a replica that is down."""
        await self.kill(node)
        self.unconfigured.remove(node)

    async def _set_periods(self) -> None:
        for sentinel in self.sentinels:
            await self.until(
                partial(self.answers, sentinel), 20.0, f"{sentinel.name} does not answer"
            )
        for name, period_ms in self._sentinel_periods_ms.items():
            for sentinel in self.sentinels:
                await self.command(sentinel, "SENTINEL", "DEBUG", name, str(period_ms))

    async def until_sentinels_agree(self, timeout_s: float = 20.0) -> None:
        """Waits until each one sees all others, healthy."""
        await self.until(self._sentinels_agree, timeout_s, "the Sentinels do not know each other")

    async def _sentinels_agree(self) -> bool:
        """Whether each one sees the master, every replica and every other Sentinel, all healthy."""
        replicas = len(self.data) + len(self.unconfigured) - 1
        for sentinel in self.sentinels:
            if not await self.answers(sentinel):
                return False
            master = as_pairs(await self.command(sentinel, "SENTINEL", "MASTER", MASTER_NAME))
            seen = [
                as_pairs(entry)
                for kind in ("REPLICAS", "SENTINELS")
                for entry in as_list(await self.command(sentinel, "SENTINEL", kind, MASTER_NAME))
            ]
            healthy = (
                master["flags"] == "master"
                and int(master["num-slaves"]) == replicas
                and int(master["num-other-sentinels"]) == len(self.sentinels) - 1
                and all(entry["flags"] in {"slave", "sentinel"} for entry in seen)
                and all(entry.get("master-link-status", "ok") == "ok" for entry in seen)
            )
            if not healthy:
                return False
        return True

    async def named_by(self, sentinel: StoreNode) -> StoreNode:
        """The master that one Sentinel names.

        Raises:
            OSError, ReplyError: it does not answer.
            ClusterError: it names a node of another cluster.
        """
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        ip, port = map(as_text, as_list(await self.command(sentinel, *words, timeout_s=0.5)))
        for node in (*self.data, *self.unconfigured):
            if node.address == f"{ip}:{port}":
                return node
        raise ClusterError(
            f"{sentinel.name} names {ip}:{port} as master, who is not of this cluster"
        )

    async def master(self) -> StoreNode:
        """The master that a majority of the Sentinels names; ClusterError if there is none."""
        named: Counter[StoreNode] = Counter()
        answers = await asyncio.gather(*map(self.named_by, self.sentinels), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, StoreNode):
                named[answer] += 1
            elif not isinstance(answer, OSError | ReplyError):
                raise answer
        for node, votes in named.items():
            if votes >= self.quorum:
                return node
        raise ClusterError(f"no majority of the Sentinels names a master: {dict(named)}")

    async def wait_for_master(
        self, other_than: StoreNode | None = None, timeout_s: float = 30.0
    ) -> StoreNode:
        """Waits until a majority names a master, not the given one, that says so itself."""
        return await self.until_master(self.master, other_than, timeout_s, "there is no master")

    async def wait_until_in_sync(self, timeout_s: float = 30.0) -> None:
        """Waits until every data node is there, and every replica at its master's end."""

        async def they_are() -> bool:
            try:
                master = await self.master()
            except ClusterError as error:
                raise NotYetError(str(error)) from None
            all_data = [*self.data, *self.unconfigured]
            return await self.in_sync(master, [node for node in all_data if node != master])

        await self.until(they_are, timeout_s, "the replicas are not in sync")

    async def failover(self, *, coordinated: bool = True) -> StoreNode:
        """SENTINEL FAILOVER, with COORDINATED or without; returns the new master."""
        old = await self.master()
        words = ["SENTINEL", "FAILOVER", MASTER_NAME, *(["COORDINATED"] if coordinated else [])]
        timeout_s = self.failover_timeout_ms / 1_000 * 2

        async def accepted() -> bool:
            for sentinel in self.sentinels:
                # One whose clock jumped says yes, and then does nothing for 30 s.
                info = as_info(await self.command(sentinel, "INFO", "sentinel"))
                if info["sentinel_tilt"] == "0":
                    # Refused while the last one lasts: its master is there before its end.
                    return await self.command(sentinel, *words) == "OK"
            return False

        await self.until(accepted, timeout_s, "no Sentinel accepts a failover")
        return await self.wait_for_master(old, timeout_s)


def _sentinel_id(node: StoreNode) -> str:
    return hashlib.sha1(node.address.encode(), usedforsecurity=False).hexdigest()
