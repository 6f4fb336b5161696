"""Servers that speak RESP and say what a test tells them to: nodes, Sentinels, Cluster nodes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ddq.store.topology import Node


class ReplyError(Exception):
    """An error as a reply: ``ReplyError("READONLY You can't write")``."""


def encode(reply: Any) -> bytes:
    """One RESP2 value."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, ReplyError):
        return f"-{reply}\r\n".encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, str | bytes):
        data = reply.encode() if isinstance(reply, str) else reply
        return b"$%d\r\n%s\r\n" % (len(data), data)
    return b"*%d\r\n" % len(reply) + b"".join(map(encode, reply))


class FakeRedis:
    """Answers commands by ``answer``; subclasses say how.

    Attributes:
        commands: what came in, without what a client says of itself.
        connections_count: how many were opened.
        error: the answer to everything, if given.
        tls: with which it listens; None for none.
        hangs: whether it takes commands and answers none, like a stopped process.
    """

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.connections_count = 0
        self.hangs = False
        self.error: ReplyError | None = None
        self.tls: ssl.SSLContext | None = None
        self.subscribed = asyncio.Event()
        self._node: Node | None = None
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, set[str]] = {}
        self._served: set[asyncio.Task[None]] = set()

    @property
    def node(self) -> Node:
        """Where it listens."""
        assert self._node is not None
        return self._node

    @property
    def open_count(self) -> int:
        """Connections that are open now."""
        return len(self._writers)

    def answer(self, command: tuple[str, ...]) -> Any:
        """The reply to one command; an ReplyError is one too."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listens, at its old port if it has had one."""
        port = self._node.port if self._node else 0
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self.tls)
        self._node = Node("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Closes the port and all connections, like a process that was killed."""
        if self._server is not None:
            self._server.close()
            self.drop()
            await self._server.wait_closed()
            await asyncio.gather(*self._served)
            self._server = None

    def drop(self) -> None:
        """Closes all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def publish(self, channel: str, message: str) -> None:
        """Sends the message to the subscribers of the channel."""
        for writer, channels in self._writers.items():
            if channel in channels:
                writer.write(encode(["message", channel, message]))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        self.connections_count += 1
        self._writers[writer] = set()
        try:
            while True:
                command = await self._read(reader)
                if self.hangs:
                    continue
                writer.write(encode(self._reply(command, writer)))
                if command[0] == "SUBSCRIBE":
                    self.subscribed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._writers[writer]
            self._served.discard(task)
            writer.close()

    def _reply(self, command: tuple[str, ...], writer: asyncio.StreamWriter) -> Any:
        if command[:2] == ("CLIENT", "SETINFO"):
            return "OK"
        self.commands.append(command)
        if command[0] == "SUBSCRIBE":
            self._writers[writer] |= {*command[1:]}
            return ["subscribe", command[1], 1]
        if command[0] == "AUTH":
            return "OK"
        if command[0] == "PING":
            return ["pong", ""] if self._writers[writer] else "PONG"
        return self.error or self.answer(command)

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[str, ...]:
        count = int((await reader.readexactly(1) + await reader.readline())[1:])
        words = []
        for _ in range(count):
            size_bytes = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size_bytes + 2))[:-2].decode())
        return tuple(words)


class FakeNode(FakeRedis):
    """A data node.

    Attributes:
        role: "master" or "slave".
        replicas: that ROLE of a master names.
        replies: to other commands than ROLE, by their first word.
    """

    def __init__(self, role: str = "master") -> None:
        super().__init__()
        self.role = role
        self.replicas: list[Node] = []
        self.replies: dict[str, Any] = {}

    def answer(self, command: tuple[str, ...]) -> Any:
        """See FakeRedis.answer."""
        if command == ("ROLE",):
            if self.role == "master":
                return ["master", 1, [[node.host, str(node.port), "1"] for node in self.replicas]]
            return ["slave", "127.0.0.1", 1, "connected", 1]
        return self.replies.get(command[0], "OK")


class FakeSentinel(FakeRedis):
    """A Sentinel that watches one master.

    Attributes:
        name: of the master.
        master, epoch: what it says.
        vote_epoch: in which it voted last.
        others: the Sentinels that it knows.
        replicas: with their flags.
    """

    def __init__(self, name: str = "main") -> None:
        super().__init__()
        self.name = name
        self.master = Node("127.0.0.1", 1)
        self.epoch = self.vote_epoch = 0
        self.others: Sequence[Node] = ()
        self.replicas: dict[Node, str] = {}

    def answer(self, command: tuple[str, ...]) -> Any:
        """See FakeRedis.answer."""
        if command == ("SENTINEL", "MYID"):
            return f"id-{self.node.port}"
        assert command[0] == "SENTINEL", command
        if command[1] == "IS-MASTER-DOWN-BY-ADDR":
            assert command[4] == "0", "another epoch would make it vote"
            return [0, "*", self.vote_epoch]
        if command[2] != self.name:
            if command[1] == "GET-MASTER-ADDR-BY-NAME":
                return None
            return ReplyError("ERR No such master with that name")
        return {
            "GET-MASTER-ADDR-BY-NAME": [self.master.host, str(self.master.port)],
            # It stays with the old one while replicas are being turned round.
            "MASTER": _flat(
                {
                    "ip": "192.0.2.1",
                    "port": "1",
                    "flags": "master",
                    "config-epoch": str(self.epoch),
                    "down-after-milliseconds": "1000",
                    "failover-timeout": "10000",
                    "quorum": "2",
                    "num-other-sentinels": str(len(self.others)),
                }
            ),
            "SENTINELS": [_flat({"ip": node.host, "port": str(node.port)}) for node in self.others],
            "REPLICAS": [
                _flat(
                    {
                        "ip": node.host,
                        "port": str(node.port),
                        "flags": flags,
                        "master-link-status": "ok",
                        "slave-priority": "100",
                    }
                )
                for node, flags in self.replicas.items()
            ],
        }[command[1]]


def _flat(fields: dict[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]


@dataclass
class FakeMap:
    """What Cluster nodes say; several may share one.

    Attributes:
        ranges: (first, last, master, replicas).
        epoch: the current one.
        epochs: of the masters' masteries.
    """

    ranges: list[tuple[int, int, Node, tuple[Node, ...]]] = field(default_factory=list)
    epoch: int = 1
    epochs: dict[Node, int] = field(default_factory=dict)
    state: str = "ok"


class FakeClusterNode(FakeNode):
    """A node of a Cluster; ``map`` is what it says of it."""

    def __init__(self, map_: FakeMap, role: str = "master") -> None:
        super().__init__(role)
        self.map = map_

    def answer(self, command: tuple[str, ...]) -> Any:
        """See FakeRedis.answer."""
        if command == ("CLUSTER", "SLOTS"):
            return [
                [first, last, *([n.host, n.port, f"id-{n.port}", []] for n in (master, *replicas))]
                for first, last, master, replicas in self.map.ranges
            ]
        if command == ("CLUSTER", "INFO"):
            return f"cluster_state:{self.map.state}\r\ncluster_current_epoch:{self.map.epoch}\r\n"
        if command == ("CLUSTER", "NODES"):
            masters = {master for _, _, master, _ in self.map.ranges}
            return "".join(
                f"id-{n.port} {n.host}:{n.port}@1 master - 0 0 {self.map.epochs.get(n, 1)} c\n"
                for n in masters
            )
        return super().answer(command)


@asynccontextmanager
async def running(*servers: FakeRedis) -> AsyncIterator[None]:
    """All of them, until the end."""
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until the condition holds; the test's own time-out is the bound."""
    while not condition():  # noqa: ASYNC110 - the condition has no event
        await asyncio.sleep(0.001)


def hosts(servers: Iterable[FakeRedis]) -> str:
    """As in a URL."""
    return ",".join(str(server.node) for server in servers)
