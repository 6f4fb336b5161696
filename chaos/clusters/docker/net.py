"""Addresses for containers that nothing else on this machine uses: part of 198.18.0.0/15.

That range is for benchmarks and is routed nowhere. Sentinels know each other by address, so the
addresses are fixed.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from pathlib import Path
from typing import IO, Any

import docker

from chaos.clusters import ClusterError
from chaos.clusters.process.loopback import read_mark, registry

_RANGE = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))
_MARK_PREFIX = "container-net-"
_GATEWAY = 1


class ContainerNet:
    """The addresses .1 to .254 of one run; the first is this machine's own.

    The mark is a locked file with the run's folder in it, as that of a ``LoopbackNet``.
    """

    def __init__(self, number: int, mark: IO[str]) -> None:
        self.number = number
        self._mark = mark

    @classmethod
    def take(cls, folder: Path) -> ContainerNet:
        """Takes a net that neither a run, nor the engine, nor this machine's routes have.

        Raises:
            ClusterError: none is free.
        """
        used = [*_engine_nets(), *_routes()]
        start = os.getpid() % len(_RANGE)
        for number in (*range(start, len(_RANGE)), *range(start)):
            if any(_RANGE[number].overlaps(other) for other in used):
                continue
            mark = _open_mark(number)
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mark.close()
                continue
            mark.truncate(0)
            mark.write(f"{folder}\n")
            mark.flush()
            return cls(number, mark)
        raise ClusterError("no free net in 198.18.0.0/15; end another chaos run first")

    @property
    def subnet(self) -> str:
        """All of it, as the engine writes it."""
        return str(_RANGE[self.number])

    def ip(self, last: int) -> str:
        """One address of the net."""
        return str(_RANGE[self.number][last])

    @property
    def watcher_ip(self) -> str:
        """Where the harness speaks from, apart from every client."""
        return self.ip(_GATEWAY)

    def release(self) -> None:
        """Gives the net back; may be called twice."""
        if not self._mark.closed:
            self._mark.truncate(0)
            self._mark.close()


def is_dead(number: int) -> bool:
    """Whether no run holds the mark of this net."""
    with _open_mark(number) as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def dead_marks() -> list[Path]:
    """The folders of runs that died; they are forgotten by this."""
    folders = []
    for path in registry().glob(f"{_MARK_PREFIX}*"):
        with path.open("a+") as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if folder := read_mark(mark):
                folders.append(folder)
                mark.truncate(0)
    return folders


def _open_mark(number: int) -> IO[str]:
    return (registry() / f"{_MARK_PREFIX}{number}").open("a+")


def _engine_nets() -> list[ipaddress.IPv4Network]:
    client = docker.from_env()
    try:
        networks = client.networks.list()
    finally:
        client.close()
    plans: list[dict[str, Any]] = [network.attrs.get("IPAM") or {} for network in networks]
    configs = [config for plan in plans for config in plan.get("Config") or ()]
    nets = [ipaddress.ip_network(c["Subnet"], strict=False) for c in configs if "Subnet" in c]
    return [net for net in nets if isinstance(net, ipaddress.IPv4Network)]


def _routes() -> list[ipaddress.IPv4Network]:
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, target, _, _, _, _, _, mask, *_ = line.split()
        # Hexadecimal, the lowest byte first.
        address, bits = (int.from_bytes(bytes.fromhex(word)[::-1]) for word in (target, mask))
        if bits:
            found.append(ipaddress.IPv4Network((address, bits.bit_count())))
    return found
