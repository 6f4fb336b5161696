"""The hosts: for each a container that does nothing but hold a network, which others join.

So a data node and its Sentinel have one network, whose cable can be pulled, and die apart. Each has
an address of its own there, as everywhere in this harness: that tells their traffic apart.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.clusters import ClusterError, Cut, NotAvailableError
from chaos.clusters.docker.container import at
from chaos.clusters.docker.engine import IMAGE, Engine
from chaos.clusters.process.firewall import drop_rule

_RULE = re.compile(r"^\[(?P<packets>\d+):\d+\] -A \w+ .*--comment \"?(?P<name>[\w-]+)\"? ")
# On the interface that has the first address, whatever the engine calls it.
_ADD_ADDRESSES = """
set -e
device=$(ip -o -4 address show to "$1" | awk '{print $2}')
shift
for address in "$@"; do ip address replace "$address/24" dev "$device"; done
"""
# One transaction for each host.
_RESTORE = 'printf "%s\\n" "$@" | iptables-restore --wait 10 --noflush'
_HOLD = "exec sleep infinity"


class Hosts:
    """The hosts of one run, and the network between them.

    Args:
        network: its name.
        prefix: of the names of the containers.
        folder: of the run; there under the same path.
    """

    def __init__(
        self, engine: Engine, network: str, prefix: str, folder: Path, image: str = IMAGE
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._execs = itertools.count(1)
        self._network = network
        self._prefix = prefix
        self._image = image
        self._holders: dict[str, Any] = {}
        self._ips: dict[str, Sequence[str]] = {}
        self._cuts: dict[str, set[str]] = {}
        self._unplugged: set[str] = set()

    def __contains__(self, host: str) -> bool:
        return host in self._holders

    async def add(self, host: str, ips: Sequence[str], mounts: Mapping[Path, str]) -> None:
        """Makes a host with these addresses.

        Args:
            mounts: volumes that live as long as the host does, by path.
        """
        engine = self._engine
        holder = await engine.call(
            engine.client.containers.create,
            self._image,
            ["sh", "-c", _HOLD],
            entrypoint=[],
            name=f"{self._prefix}-{host}",
            labels=engine.labels,
            user="root",
            cap_add=["NET_ADMIN"],
            volumes=[
                f"{self._folder}:{self._folder}",
                *(f"{volume}:{path}" for path, volume in mounts.items()),
            ],
            **at(engine, self._network, ips[0]),
        )
        await engine.call(holder.start)
        self._holders[host] = holder
        self._ips[host] = ips
        await self._set_addresses(host)

    async def _set_addresses(self, host: str) -> None:
        first, *others = self._ips[host]
        if others:
            await self.exec(host, _ADD_ADDRESSES, first, *others)

    async def exec(self, host: str, script: str, *arguments: str) -> str:
        """Runs a shell script on a host as root; returns what it prints.

        Raises:
            ClusterError: it failed.
        """
        output = self._folder / f"exec-{next(self._execs)}"
        command = ["sh", "-c", f'exec >"$0" 2>&1\n{script}', str(output), *arguments]
        status = await self._engine.exec(self._holders[host], command)
        text = output.read_text(errors="replace") if output.exists() else ""
        output.unlink(missing_ok=True)
        if status != 0:
            raise ClusterError(f"on {host}, this failed with {status}: {script}: {text.strip()}")
        return text

    def network_of(self, host: str) -> str:
        """What a container that is to stand on it is given as its network."""
        return f"container:{self._holders[host].id}"

    # Packets.

    async def drop(self, cuts: Sequence[Cut]) -> str:
        """Drops what goes from here to there, on all hosts at about the same moment."""
        name = f"ddq-chaos-{len(self._cuts) + 1}"
        rules: dict[str, list[str]] = {}
        for cut in cuts:
            host, chain = self._where(cut)
            rules.setdefault(host, []).append(drop_rule(chain, cut, name))
        self._cuts[name] = set(rules)
        await asyncio.gather(*(self._restore(host, lines) for host, lines in rules.items()))
        return name

    def _where(self, cut: Cut) -> tuple[str, str]:
        """The host that drops it: its target, or its source where that is the only one of ours."""
        for ip, chain in ((cut.target_ip, "INPUT"), (cut.source_ip, "OUTPUT")):
            for host, ips in self._ips.items():
                if ip in ips:
                    return host, chain
        raise NotAvailableError(
            f"neither {cut.source_ip} nor {cut.target_ip} is an address of a host of the store"
        )

    async def _restore(self, host: str, rules: Iterable[str]) -> None:
        await self.exec(host, _RESTORE, "*filter", *rules, "COMMIT")

    async def dropped_packets(self, name: str) -> int:
        """How many packets the rules of one name have dropped."""
        found = await asyncio.gather(
            *(self.exec(host, "iptables-save -c -t filter") for host in self._cuts.get(name, ()))
        )
        rules = [_RULE.match(line) for text in found for line in text.splitlines()]
        return sum(int(rule["packets"]) for rule in rules if rule and rule["name"] == name)

    async def heal(self, name: str | None = None) -> None:
        """Removes the rules of one name, or all, and plugs in what was unplugged."""
        if name is None:
            await asyncio.gather(*map(self.plug, list(self._unplugged)))
        names = list(self._cuts) if name is None else [name]
        for each in names:
            hosts = self._cuts.pop(each, set())
            await asyncio.gather(*(self._heal(host, each) for host in hosts))

    async def _heal(self, host: str, name: str) -> None:
        saved = await self.exec(host, "iptables-save -t filter")
        rules = [
            line.replace("-A ", "-D ", 1)
            for line in saved.splitlines()
            if (rule := _RULE.match(f"[0:0] {line}")) and rule["name"] == name
        ]
        if rules:
            await self._restore(host, rules)

    # Cables.

    async def unplug(self, host: str) -> None:
        """Takes a host off the network, with every address that it has."""
        network = await self._engine.call(self._engine.client.networks.get, self._network)
        await self._engine.call(network.disconnect, self._holders[host], force=True)
        self._unplugged.add(host)

    async def plug(self, host: str) -> None:
        """Puts it back, with the same addresses."""
        if host not in self._unplugged:
            return
        network = await self._engine.call(self._engine.client.networks.get, self._network)
        await self._engine.call(
            network.connect, self._holders[host], ipv4_address=self._ips[host][0]
        )
        await self._set_addresses(host)
        self._unplugged.discard(host)

    def unplugged(self, host: str) -> bool:
        """Whether it is off the network."""
        if host not in self._holders:
            raise ClusterError(f"{host}: this run has no such host")
        return host in self._unplugged
