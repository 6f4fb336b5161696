"""A Valkey Cluster: three shards of a master and two replicas each, spread over three hosts."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chaos.clusters import Ability, ClusterError, NodeKind, StoreNode
from chaos.clusters.process.nodes import BASE_CONFIG, DATA_PORT, ProcessCluster
from chaos.clusters.resp import ReplyError, as_info, as_list, as_text
from chaos.eventually import NotYetError

SLOTS_COUNT = 16_384
_BUS_OFFSET = 10_000
_SHARDS = "abc"
_PER_SHARD = 3
_MIGRATE_BATCH_COUNT = 100
_MIGRATE_TIMEOUT_MS = 5_000
_LATER = """
import os, sys, time
time.sleep(float(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class NodesEntry:
    """What one node says of another in CLUSTER NODES."""

    id: str
    address: str
    flags: frozenset[str]
    slots: tuple[range, ...]


class ShardedCluster(ProcessCluster):
    """A Cluster of nine nodes: ``a1 a2 a3`` are the first shard, ``a1`` its first master.

    Each host has one node of each shard and one of the first masters.

    Args:
        node_timeout_ms: when a silent node is taken for down.
        appendfsync: always, everysec or no.
        options: further settings, by the node's name or ``*`` for all.
        folder, server, clocks, disk_bytes, power: see ProcessCluster.
    """

    def __init__(
        self,
        *,
        node_timeout_ms: int = 2_000,
        appendfsync: str = "everysec",
        options: Mapping[str, Mapping[str, str]] | None = None,
        folder: Path | None = None,
        server: Path | None = None,
        clocks: bool = False,
        disk_bytes: int | None = None,
        power: bool = False,
    ) -> None:
        super().__init__(
            folder=folder, server=server, clocks=clocks, disk_bytes=disk_bytes, power=power
        )
        self.node_timeout_ms = node_timeout_ms
        self._appendfsync = appendfsync
        self._options = options or {}
        self.shards = [
            [
                StoreNode(
                    f"{letter}{n}",
                    NodeKind.DATA,
                    f"h{(shard + n - 1) % _PER_SHARD + 1}",
                    self.net.ip(10 * (shard + 1) + n),
                    DATA_PORT,
                )
                for n in range(1, _PER_SHARD + 1)
            ]
            for shard, letter in enumerate(_SHARDS)
        ]

    @property
    def nodes(self) -> Sequence[StoreNode]:
        return [node for shard in self.shards for node in shard]

    @property
    def store_url(self) -> str:
        return f"cluster://{','.join(node.address for node in self.nodes)}"

    @property
    def data_nodes(self) -> str:
        """How many each shard has: which ones those are is for the Cluster to say."""
        return str(_PER_SHARD)

    @property
    def unavailable(self) -> Mapping[Ability, str]:
        """Each ability that there is not, with the reason and the remedy."""
        return {
            **super().unavailable,
            Ability.UNCONFIGURED: "a replica of a Cluster is a member of it; use a SentinelCluster",
        }

    def group(self, node: StoreNode) -> Sequence[StoreNode]:
        """The nodes of its shard."""
        return self.shards[self.shard_of(node)]

    def shard_of(self, node: StoreNode) -> int:
        """The number of the shard that the node belongs to."""
        return next(k for k, shard in enumerate(self.shards) if node in shard)

    async def _start(self) -> None:
        """The masters, then their replicas."""
        for node in self.nodes:
            self.write_config(node, self._config(node))
            self._write_topology(node)
        masters = [shard[0] for shard in self.shards]
        for node in masters:
            await self.launch(node)
        for node in masters:
            # A replica that finds no master tries again only after a second.
            await self.until(partial(self.answers, node), 20.0, f"{node.name} does not answer")
        for node in self.nodes:
            if node not in masters:
                await self.launch(node)
        await self.until(self._nodes_agree, 30.0, "the nodes do not agree")
        await self.wait_until_in_sync()

    def entrypoint(self, node: StoreNode) -> Sequence[str] | None:
        """The server, later than the others need for an election.

        In a Cluster there are no Sentinels to ask. A master that returns before its loss was
        detected is followed by its replicas, also when its disk is empty.
        """
        delay_s = 2 * self.node_timeout_ms / 1_000 + 1
        return [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _LATER,
            str(delay_s),
            str(self.server),
            str(self.config(node)),
        ]

    def _config(self, node: StoreNode) -> list[str]:
        settings = {
            **BASE_CONFIG,
            "appendfsync": self._appendfsync,
            "min-replicas-to-write": str(_PER_SHARD // 2),
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(self.node_timeout_ms),
            # Else a replica may leave for another shard, and WAIT counts a replica that is not
            # configured.
            "cluster-allow-replica-migration": "no",
            "cluster-require-full-coverage": "no",
            **self._options.get("*", {}),
            **self._options.get(node.name, {}),
        }
        return [f"{name} {value}" for name, value in settings.items()]

    def _write_topology(self, own: StoreNode) -> None:
        """What a node would have noted after CLUSTER MEET, ADDSLOTSRANGE and REPLICATE.

        Given to it from the start, because gossip takes seconds to bring it about.
        """
        lines = []
        for k, shard in enumerate(self.shards):
            first = k * SLOTS_COUNT // len(self.shards)
            last = (k + 1) * SLOTS_COUNT // len(self.shards) - 1
            for node in shard:
                role = "master" if node == shard[0] else "slave"
                myself = "myself," if node == own else ""
                of = "-" if node == shard[0] else _node_id(shard[0])
                slots = f" {first}-{last}" if node == shard[0] else ""
                lines.append(
                    f"{_node_id(node)} {node.address}@{node.port + _BUS_OFFSET} "
                    f"{myself}{role} {of} 0 0 {k + 1} connected{slots}"
                )
        lines.append(f"vars currentEpoch {len(self.shards)} lastVoteEpoch 0")
        (self.folder / own.name / "nodes.conf").write_text("\n".join([*lines, ""]))

    async def _nodes_agree(self) -> bool:
        """Whether every node sees every other one, and all slots served."""
        for node in self.nodes:
            if not await self.answers(node):
                return False
            info = as_info(await self.command(node, "CLUSTER", "INFO"))
            if (
                info["cluster_state"] != "ok"
                or info["cluster_slots_ok"] != str(SLOTS_COUNT)
                or info["cluster_known_nodes"] != str(len(self.nodes))
            ):
                return False
            if any(view.flags & {"fail", "fail?", "handshake"} for view in await self.views(node)):
                return False
        return True

    async def views(self, node: StoreNode) -> list[NodesEntry]:
        """CLUSTER NODES of one node."""
        text = as_text(await self.command(node, "CLUSTER", "NODES", timeout_s=1.0))
        return [_parse_view(line) for line in text.splitlines()]

    async def _all_views(self) -> list[list[NodesEntry]]:
        """Of every node that answers."""
        answers = await asyncio.gather(*map(self.views, self.nodes), return_exceptions=True)
        views = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                views.append(answer)
            elif not isinstance(answer, OSError | ReplyError):
                raise answer
        return views

    def slot_of(self, key: str) -> int:
        """The slot of a key: CRC16 of its hash tag, or of all of it."""
        start = key.find("{")
        end = key.find("}", start + 1)
        tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
        return _crc16(tag.encode("utf-8", "surrogateescape")) % SLOTS_COUNT

    async def owner(self, slot: int) -> StoreNode:
        """Who serves a slot in the eyes of most nodes; ClusterError if there is none."""
        named: Counter[str] = Counter()
        for views in await self._all_views():
            for view in views:
                if any(slot in slots for slots in view.slots):
                    named[view.address] += 1
        for node in self.nodes:
            if named[node.address] > len(self.nodes) // 2:
                return node
        raise ClusterError(f"no majority of the nodes names an owner of slot {slot}: {dict(named)}")

    async def master(self, shard: int = 0) -> StoreNode:
        """The master of a shard in the eyes of most nodes; ClusterError if there is none."""
        members = self.shards[shard]
        named: Counter[str] = Counter()
        for answer in await asyncio.gather(*map(self.views, self.nodes), return_exceptions=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, OSError | ReplyError):
                    raise answer
                continue
            named.update(view.address for view in answer if "master" in view.flags and view.slots)
        for node in members:
            if named[node.address] > len(self.nodes) // 2:
                return node
        raise ClusterError(f"no majority of the nodes names a master of shard {_SHARDS[shard]}")

    async def wait_for_master(
        self, other_than: StoreNode | None = None, timeout_s: float = 30.0
    ) -> StoreNode:
        """Waits until the shard of the given node (else the first one) has another master."""
        shard = self.shard_of(other_than) if other_than else 0
        return await self.until_master(
            partial(self.master, shard),
            other_than,
            timeout_s,
            f"shard {_SHARDS[shard]} has no master",
        )

    async def wait_until_in_sync(self, timeout_s: float = 30.0) -> None:
        """Waits until every node is there, and every replica at its master's end."""

        async def they_are() -> bool:
            for k, shard in enumerate(self.shards):
                try:
                    master = await self.master(k)
                except ClusterError as error:
                    raise NotYetError(str(error)) from None
                await self.in_sync(master, [node for node in shard if node != master])
            return True

        await self.until(they_are, timeout_s, "the replicas are not in sync")

    async def failover(self, *, coordinated: bool = True, shard: int = 0) -> StoreNode:
        """CLUSTER FAILOVER of one shard, or TAKEOVER, without a vote; returns the new master."""
        old = await self.master(shard)
        replica = next(node for node in self.shards[shard] if node != old)
        words = ["CLUSTER", "FAILOVER", *([] if coordinated else ["TAKEOVER"])]
        await self.command(replica, *words)
        return await self.wait_for_master(old)

    async def migrate_slot(
        self, slot: int, target: StoreNode, *, atomic: bool = False, guarded: bool = True
    ) -> None:
        """Moves a slot with its keys to another master, under traffic too.

        Waits first until everything is in sync, and again at the end: a target that dies with what
        its replicas do not have takes with it what was acknowledged elsewhere.

        Args:
            atomic: by CLUSTER MIGRATESLOTS, which Valkey has from 9.0 on; else key by key.
            guarded: False waits for no replica, which is unsafe.

        Raises:
            ClusterError: the target is not a master, or it was not done in time.
            ReplyError: the target takes nothing, for want of replicas.
        """
        if guarded:
            await self.wait_until_in_sync()
        source = await self.owner(slot)
        masters = [await self.master(k) for k in range(len(self.shards))]
        if target not in masters:
            raise ClusterError(f"{target.name} is not a master, so no slot can move there")
        if source == target:
            return
        to = await self._id(target)
        if atomic:
            words = ("MIGRATESLOTS", "SLOTSRANGE", str(slot), str(slot), "NODE", to)
            await self.command(source, "CLUSTER", *words)
        else:
            await self.open_slot(slot, source, target)
            await self.move_keys(slot, source, target)
            # The target first: were the source first, no node would serve the slot in between.
            for master in (target, source, *(m for m in masters if m not in {target, source})):
                await self.command(master, "CLUSTER", "SETSLOT", str(slot), "NODE", to)

        async def all_know() -> bool:
            return await self.owner(slot) == target

        await self.until(all_know, 30.0, f"{target.name} does not own slot {slot}")
        if guarded:
            await self.wait_until_in_sync()

    async def open_slot(self, slot: int, source: StoreNode, target: StoreNode) -> None:
        """Its keys are being moved: a request for one that has left is redirected."""
        to, of = await self._id(target), await self._id(source)
        await self.command(target, "CLUSTER", "SETSLOT", str(slot), "IMPORTING", of)
        await self.command(source, "CLUSTER", "SETSLOT", str(slot), "MIGRATING", to)

    async def move_keys(self, slot: int, source: StoreNode, target: StoreNode) -> None:
        """Moves the keys of an open slot; ReplyError if the target does not take them."""
        number = str(_MIGRATE_BATCH_COUNT)
        while keys := as_list(
            await self.command(source, "CLUSTER", "GETKEYSINSLOT", str(slot), number)
        ):
            await self.command(
                source,
                "MIGRATE",
                target.ip,
                str(target.port),
                "",
                "0",
                str(_MIGRATE_TIMEOUT_MS),
                "KEYS",
                *map(as_text, keys),
                timeout_s=_MIGRATE_TIMEOUT_MS / 1_000 + 1,
            )

    async def _id(self, node: StoreNode) -> str:
        return as_text(await self.command(node, "CLUSTER", "MYID"))


def _node_id(node: StoreNode) -> str:
    return hashlib.sha1(node.address.encode(), usedforsecurity=False).hexdigest()


def _parse_view(line: str) -> NodesEntry:
    node_id, address, flags, _, _, _, _, _, *slots = line.split()
    ranges = []
    for text in slots:
        # In brackets: a slot that moves.
        if not text.startswith("["):
            first, _, last = text.partition("-")
            ranges.append(range(int(first), int(last or first) + 1))
    return NodesEntry(
        node_id, address.partition("@")[0], frozenset(flags.split(",")), tuple(ranges)
    )


def _crc16(data: bytes) -> int:
    """CRC16 in the XMODEM form."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc
