"""Connections that go through Toxiproxy, so that they can be made bad.

One Toxiproxy a run. A link is one kind of connection, as from the schedulers to the store: one
proxy for each address at its far end, all of them bad together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toxiproxy
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import ProxyExists

from chaos.clusters import ClusterError, NotAvailableError
from chaos.clusters.process.launch import Child, launch
from chaos.eventually import eventually

API_PORT = 8474
READY_TIMEOUT_S = 10.0
_POLL_S = 0.02

# What a new connection says first to be answered at once.
STORE_HELLO = b"PING\r\n"
GRPC_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class Link:
    """One kind of connection.

    Attributes:
        address_map: for each far address, the one to connect to instead.
        hello: bytes that the far end answers at once, to try it.
    """

    name: str
    address_map: Mapping[str, str]
    hello: bytes
    proxies: tuple[Any, ...]

    async def add_toxic(self, kind: str, stream: str, attributes: Mapping[str, int]) -> None:
        """Makes every connection of the link bad, old ones too."""
        for proxy in self.proxies:
            await asyncio.to_thread(
                proxy.add_toxic, type=kind, stream=stream, name=kind, attributes=dict(attributes)
            )

    async def remove_toxic(self, kind: str) -> None:
        """Makes it good again."""
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.destroy_toxic, kind)

    async def toxics(self) -> list[set[str]]:
        """The kinds of toxic on each of its proxies."""
        return [set(await asyncio.to_thread(proxy.toxics)) for proxy in self.proxies]

    async def close(self) -> None:
        """Ends its connections and refuses new ones."""
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.disable)

    async def open(self) -> None:
        """Takes connections again."""
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.enable)

    async def answer_s(self, timeout_s: float) -> list[float | None]:
        """How long each far address takes to answer a new connection; None if it does not."""
        return list(
            await asyncio.gather(
                *(self._answer_s(address, timeout_s) for address in self.address_map.values())
            )
        )

    async def _answer_s(self, address: str, timeout_s: float) -> float | None:
        host, _, port = address.rpartition(":")
        begin_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(self.hello)
                    answer = await reader.read(1)
                finally:
                    writer.transport.abort()
        except OSError:
            return None
        return time.monotonic() - begin_s if answer else None


class Toxiproxy:
    """A Toxiproxy server as a child process.

    Its Python client keeps the server's address in a class, so there can be one in a process.

    Args:
        binary: the server; ``tools/gotool.sh server`` builds it and prints where it is.
        ip: where its API and its proxies listen.
    """

    def __init__(self, binary: Path, ip: str, folder: Path) -> None:
        self._binary = binary
        self._ip = ip
        self._folder = folder
        self._child: Child | None = None
        self._next_port = 20_000
        self._api = toxiproxy.Toxiproxy()

    async def start(self) -> None:
        """Starts it and waits until its API answers.

        Raises:
            NotAvailableError: the binary was not built.
        """
        command = [str(self._binary), "-host", self._ip, "-port", str(API_PORT)]
        self._child = await self._launch(command, self._folder / "toxiproxy.log")
        self._api.update_api_consumer(self._ip, API_PORT)
        child = self._child

        async def answers() -> bool:
            if not child.alive:
                raise ClusterError(f"Toxiproxy ended: {child.last_words()}")
            return await asyncio.to_thread(self._answers)

        try:
            await eventually(answers, READY_TIMEOUT_S, poll_s=_POLL_S)
        except TimeoutError:
            raise ClusterError(f"Toxiproxy does not answer: {child.last_words()}") from None

    async def _launch(self, command: Sequence[str], log: Path) -> Child:
        if not self._binary.exists():
            raise NotAvailableError(
                f"{self._binary} is not there; `tools/gotool.sh server` builds it (needs Go)"
            )
        return await launch(command, log=log, cwd=self._folder)

    @staticmethod
    def _answers() -> bool:
        try:
            return bool(APIConsumer.get("/version", timeout=1).ok)
        except OSError:
            return False

    async def link(self, name: str, addresses: list[str], hello: bytes) -> Link:
        """Puts a proxy in front of each address."""
        proxies, address_map = [], {}
        for address in addresses:
            listen = f"{self._ip}:{self._next_port}"
            self._next_port += 1
            try:
                proxy = await asyncio.to_thread(
                    self._api.create, address, f"{name}-{address}", listen
                )
            except ProxyExists:
                raise ClusterError(f"the link {name} to {address} is there already") from None
            proxies.append(proxy)
            address_map[address] = listen
        return Link(name, address_map, hello, tuple(proxies))

    async def stop(self) -> None:
        """Ends it, and with it every connection that goes through it."""
        if self._child is not None:
            await self._child.kill()
            self._child = None
