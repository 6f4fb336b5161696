"""Asks the nodes of a cluster, and waits for what they answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from chaos.clusters import ClusterError, Role, StoreNode
from chaos.clusters.process.launch import Child
from chaos.clusters.resp import (
    Reply,
    ReplyError,
    Subscription,
    as_info,
    as_list,
    as_text,
    ask,
    subscribe,
)
from chaos.eventually import NotYetError, eventually

# No event reports any of what is waited for.
POLL_S = 0.02


class Net(Protocol):
    """Addresses that nothing else on this machine uses."""

    @property
    def number(self) -> int: ...

    def ip(self, last: int) -> str:
        """One of them, by its last part."""

    @property
    def watcher_ip(self) -> str:
        """Where the harness speaks from, apart from every client."""

    def release(self) -> None:
        """Gives them back; may be called twice."""


class NodeWatcher(ABC):
    """The part of a cluster that watches its nodes, from an address that no partition cuts."""

    net: Net

    @abstractmethod
    def alive(self, node: StoreNode) -> bool:
        """Whether its process exists."""

    @abstractmethod
    def child(self, node: StoreNode) -> Child:
        """Its process; ClusterError if it was never started."""

    @abstractmethod
    def log(self, node: StoreNode) -> Path:
        """The path of the log with its output."""

    async def command(self, node: StoreNode, *words: str, timeout_s: float = 2.0) -> Reply:
        """One command to one node, from an address that no partition cuts."""
        return await ask(
            node.ip, node.port, words, timeout_s=timeout_s, source_ip=self.net.watcher_ip
        )

    async def subscribe(self, node: StoreNode, pattern: str) -> Subscription:
        """Receives what a node publishes, at an address that no partition cuts."""
        return await subscribe(node.ip, node.port, pattern, source_ip=self.net.watcher_ip)

    async def role(self, node: StoreNode) -> Role:
        """What the node says of itself at this moment."""
        try:
            word = as_text(as_list(await self.command(node, "ROLE", timeout_s=0.5))[0])
        except (OSError, ReplyError):
            return Role.UNREACHABLE
        return Role.REPLICA if word == "slave" else Role(word)

    async def answers(self, node: StoreNode) -> bool:
        """Whether it serves commands; one that still loads its data does not."""
        if not self.alive(node):
            raise ClusterError(f"{node.name} ended: {self.child(node).last_words()}")
        return await self.command(node, "PING", timeout_s=0.5) == "PONG"

    async def until_it_says(self, node: StoreNode, words: str, timeout_s: float = 20.0) -> None:
        """Waits until a node's log has these words in it."""

        async def said() -> bool:
            return words in self.log(node).read_text(errors="replace")

        await self.until(said, timeout_s, f"{node.name} does not say {words!r}")

    async def replication(self, node: StoreNode) -> dict[str, str]:
        """INFO replication."""
        return as_info(await self.command(node, "INFO", "replication"))

    async def in_sync(self, master: StoreNode, replicas: Sequence[StoreNode]) -> bool:
        """True when exactly these replicas are attached, each at the master's end.

        Raises:
            NotYetError: they are not; names the node, and what INFO replication says there.
        """
        ours = await self.replication(master)
        if ours["role"] != "master" or ours["connected_slaves"] != str(len(replicas)):
            attached = {key: value for key, value in ours.items() if key.startswith("slave")}
            raise NotYetError(
                f"{master.name} ({master.address}) has the role {ours['role']} and "
                f"{ours['connected_slaves']} of {len(replicas)} replicas: {attached}"
            )
        for replica, info in zip(
            replicas, await asyncio.gather(*map(self.replication, replicas)), strict=True
        ):
            attached_to_it = (
                info.get("master_host") == master.ip
                and info["master_link_status"] == "up"
                and info["master_sync_in_progress"] == "0"
            )
            ours_bytes, its_bytes = ours["master_repl_offset"], info.get("slave_repl_offset", "0")
            if not attached_to_it or int(its_bytes) < int(ours_bytes):
                raise NotYetError(
                    f"{replica.name} is at {its_bytes} of the {ours_bytes} bytes of {master.name}; "
                    f"it follows {info.get('master_host')}, its link is "
                    f"{info.get('master_link_status')}, full synchronization: "
                    f"{info.get('master_sync_in_progress')}"
                )
        return True

    async def until(
        self, condition: Callable[[], Awaitable[bool]], timeout_s: float, otherwise: str
    ) -> None:
        """Asks again and again; a node that does not answer means not yet.

        Raises:
            ClusterError: ``otherwise``, when the time is over.
        """
        await eventually(
            condition,
            timeout_s,
            otherwise,
            error=ClusterError,
            ignoring=(OSError, ReplyError),
            poll_s=POLL_S,
        )

    async def until_master(
        self,
        find: Callable[[], Awaitable[StoreNode]],
        other_than: StoreNode | None,
        timeout_s: float,
        otherwise: str,
    ) -> StoreNode:
        """Waits until a master is found, not the given one, that says so itself.

        Args:
            find: asks for it; ClusterError while there is none.
        """
        found: list[StoreNode] = []

        async def there_is_one() -> bool:
            try:
                node = await find()
            except ClusterError:
                return False
            if node == other_than or await self.role(node) is not Role.MASTER:
                return False
            found.append(node)
            return True

        than = f" other than {other_than.name}" if other_than else ""
        await self.until(there_is_one, timeout_s, f"{otherwise}{than}")
        return found[0]


__all__ = ["POLL_S", "Net", "NodeWatcher"]
