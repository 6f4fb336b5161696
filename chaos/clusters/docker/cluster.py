"""The Sentinel cluster in containers."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker.types

from chaos.clusters import Ability, Cut, NodeKind, NotAvailableError, StoreNode
from chaos.clusters.docker.cleanup import sweep
from chaos.clusters.docker.container import ContainerChild, launch_container
from chaos.clusters.docker.engine import IMAGE, Engine, why_unavailable
from chaos.clusters.docker.hosts import Hosts
from chaos.clusters.docker.net import ContainerNet
from chaos.clusters.process import SentinelCluster
from chaos.clusters.process.launch import Child
from chaos.clusters.resp import as_info

DDQ = "/opt/ddq/bin/ddq"
# Which store that is was said when the image was built; see the Dockerfile.
_SERVER = Path("/usr/local/bin/store-server")
_FAKETIME = Path("/usr/local/lib/libfaketime.so.1")
_FIRST_COORDINATED = 9

# A small disk is empty at first; elsewhere the configuration is there already.
_WITH_CONFIG = '[ -e "$2" ] || cp "$1" "$2"; shift 2; exec "$@"'
_EMPTY = 'rm -rf "$1/appendonlydir" "$1"/*.rdb'
_NEWEST_PART = """
set -e
part=$(ls "$1"/appendonlydir/*.incr.aof 2>/dev/null | sort -V | tail -n 1)
[ -n "$part" ] || { echo "$1 has no append-only file to damage"; exit 1; }
size=$(stat -c %s "$part")
"""
_TRUNCATE = f"""{_NEWEST_PART}
gone=$(( size < $2 ? size : $2 ))
truncate -s $(( size - gone )) "$part"
echo "$gone"
"""
_SPOIL = f"""{_NEWEST_PART}
spoilt=$(( size / 2 < $2 ? size / 2 : $2 ))
from=$(( (size - spoilt) / 2 ))
dd if=/dev/zero of="$part" bs=1 count="$spoilt" seek="$from" conv=notrunc 2>/dev/null
echo "$spoilt"
"""
_FILL = 'cat /dev/zero >>"$1/filler" 2>/dev/null; true'
_FREE = 'rm -f "$1/filler"'
_ROOM = 'df --block-size=1 --output=avail "$1" | tail -n 1'


class DockerCluster(SentinelCluster):
    """A master with its replicas, watched by Sentinels: two containers on each host.

    Args:
        image: what all of them are made of.
        folder, clocks, disk_bytes and all others: as those of ``SentinelCluster``.

    Raises:
        NotAvailableError: there is no engine, or no image; the message says what to do.
    """

    net: ContainerNet

    def __init__(
        self,
        *,
        image: str = IMAGE,
        folder: Path | None = None,
        clocks: bool = False,
        disk_bytes: int | None = None,
        **options: Any,
    ) -> None:
        if why := why_unavailable(image):
            raise NotAvailableError(why)
        self.image = image
        super().__init__(
            folder=folder, server=_SERVER, clocks=clocks, disk_bytes=disk_bytes, **options
        )
        self.engine = Engine(self.net.number)
        self.prefix = f"ddq-chaos-{self.net.number}-{secrets.token_hex(3)}"
        self.hosts = Hosts(self.engine, self.prefix, self.prefix, self.folder, image)
        self._names = itertools.count(1)
        # By name, the container that was started last.
        self._last: dict[str, ContainerChild] = {}
        self._closed = False

    def _take_net(self) -> ContainerNet:
        return ContainerNet.take(self.folder)

    @property
    def unavailable(self) -> Mapping[Ability, str]:
        """Each ability that there is not, with the reason and the remedy."""
        reasons = {
            Ability.CLOCK: None if self._clocks else "the cluster was started without clocks=True",
            Ability.FULL_DISK: (
                None if self._disk_bytes else "the cluster was started without disk_bytes"
            ),
            Ability.POWER: "what is on a disk is noted for local processes; use CLUSTER=process",
        }
        return {ability: why for ability, why in reasons.items() if why is not None}

    def _faketime(self) -> Path:
        """In the image, not on this machine."""
        return _FAKETIME

    # Start and end.

    async def _start(self) -> None:
        await sweep(self.engine)
        await self._make_network()
        names = sorted({node.host for node in self.nodes})
        await asyncio.gather(*map(self._make_host, names))
        await super()._start()

    async def _make_network(self) -> None:
        pool = docker.types.IPAMPool(subnet=self.net.subnet, gateway=self.net.watcher_ip)
        await self.engine.call(
            self.engine.client.networks.create,
            self.prefix,
            driver="bridge",
            # Nothing in it reaches anything else.
            internal=True,
            labels=self.engine.labels,
            ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        )

    async def _make_host(self, host: str) -> None:
        nodes = [node for node in self.nodes if node.host == host]
        mounts: dict[Path, str] = {}
        for node in nodes:
            if self._disk_bytes and node.kind is NodeKind.DATA:
                # Held by the host, so that it outlives the node.
                mounts[self.config(node).parent] = await self._make_small_disk(node)
        await self.hosts.add(host, [node.ip for node in nodes], mounts)

    async def _make_small_disk(self, node: StoreNode) -> str:
        name = self._volume(node)
        await self.engine.call(
            self.engine.client.volumes.create,
            name,
            driver="local",
            driver_opts={
                "type": "tmpfs",
                "device": "tmpfs",
                "o": f"size={self._disk_bytes},uid={os.getuid()},gid={os.getgid()},mode=0755",
            },
            labels=self.engine.labels,
        )
        return name

    def _volume(self, node: StoreNode) -> str:
        return f"{self.prefix}-{node.name}"

    def _mount_small(self, folder: Path) -> None:
        """The host has mounted it already."""

    async def stop(self) -> None:
        """Removes everything that this run made; may be called at any time, and twice."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.engine.remove_all()
        finally:
            # Their processes are gone; what is left are descriptors, addresses and the folder.
            await super().stop()
            self.engine.close()

    # Processes.

    async def _run(self, node: StoreNode, command: Sequence[str]) -> None:
        if node.host not in self.hosts:
            await self._make_host(node.host)
        config = ["sh", "-c", _WITH_CONFIG, "sh", str(self.template(node)), str(self.config(node))]
        small = self._disk_bytes and node.kind is NodeKind.DATA
        clock = self._clock_of(node)
        self._children[node] = await self.launch_in(
            node.name,
            [*(config if small else []), *command],
            log=self.log(node),
            env=clock.environment() if clock else {},
            volumes=[f"{self._volume(node)}:{self.config(node).parent}"] if small else [],
            network_mode=self.hosts.network_of(node.host),
        )

    async def launch_in(
        self, name: str, command: Sequence[str], *, folder: Path | None = None, **options: Any
    ) -> Child:
        """Starts a program in a container of this run, in place of the last one of that name.

        See ``launch_container``.

        Args:
            folder: what it sees under the same path; the cluster's own if not given.
        """
        if name in self._last:
            # The engine may not know of its end yet, and would not give its address away.
            await self._last.pop(name).remove()
        self._last[name] = await launch_container(
            self.engine,
            # Names are not free again at once.
            f"{self.prefix}-{name}-{next(self._names)}",
            command,
            folder=folder or self.folder,
            image=self.image,
            **options,
        )
        return self._last[name]

    def entrypoint(self, node: StoreNode) -> Sequence[str] | None:
        """``ddq node`` for a data node."""
        words = super().entrypoint(node)
        return [DDQ, *words[1:]] if words else None

    async def failover(self, *, coordinated: bool = True) -> StoreNode:
        """SENTINEL FAILOVER, with COORDINATED or without; returns the new master."""
        if coordinated:
            info = as_info(await self.command(self.sentinels[0], "INFO", "server"))
            version = info.get("valkey_version", "0")
            if int(version.partition(".")[0]) < _FIRST_COORDINATED:
                raise NotAvailableError(
                    "this store has no coordinated failover; it came with Valkey 9"
                )
        return await super().failover(coordinated=coordinated)

    # Disks.

    async def _on_disk(self, node: StoreNode, script: str, *arguments: str) -> str:
        folder = str(self.config(node).parent)
        return (await self.hosts.exec(node.host, script, folder, *arguments)).strip()

    async def empty_disk(self, node: StoreNode) -> None:
        """Removes the data of a node that is down; its configuration stays."""
        self._must_be_down(node)
        await self._on_disk(node, _EMPTY)

    async def truncate_log(self, node: StoreNode, tail_bytes: int) -> int:
        """Cuts the end off the append-only file of a node that is down."""
        self._must_be_down(node)
        return int(await self._on_disk(node, _TRUNCATE, str(tail_bytes)))

    async def spoil_log(self, node: StoreNode, middle_bytes: int) -> int:
        """Writes zeros over the middle of the append-only file of a node that is down."""
        self._must_be_down(node)
        return int(await self._on_disk(node, _SPOIL, str(middle_bytes)))

    async def fill_disk(self, node: StoreNode) -> None:
        """Leaves no room for another byte on a data node's disk."""
        self._need(Ability.FULL_DISK)
        await self._on_disk(node, _FILL)

    async def free_disk(self, node: StoreNode) -> None:
        """Gives the room back."""
        await self._on_disk(node, _FREE)

    async def free_disk_bytes(self, node: StoreNode) -> int:
        """How much more the node's disk takes."""
        return int(await self._on_disk(node, _ROOM))

    # Network.

    async def cut(self, cuts: Sequence[Cut]) -> str:
        """Drops packets from now on; see ``Partition``."""
        return await self.hosts.drop(cuts)

    async def dropped_packets(self, name: str) -> int:
        """How many packets this partition has dropped."""
        return await self.hosts.dropped_packets(name)

    async def heal(self, name: str | None = None) -> None:
        """Lets packets through again: those of one partition, or all, cables included."""
        if not self._closed:
            await self.hosts.heal(name)

    async def unplug(self, host: str) -> None:
        """Takes a host off the network, clients and all; see ``Cable``."""
        await self.hosts.unplug(host)

    async def plug(self, host: str) -> None:
        """Puts it back."""
        await self.hosts.plug(host)

    def unplugged(self, host: str) -> bool:
        """Whether it is off the network."""
        return self.hosts.unplugged(host)
