"""Connections of hostile clients: what they send, and how the server ends each call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.calls import Call, draw
from tests.support import http2

BURST = 64
"""Calls of a connection that are on their way at once."""
CALLS_COUNTS = (BURST, 10 * BURST, 40 * BURST)
"""Calls of one connection; then another one begins."""
ANSWER_MAX_S = 20.0
"""Above the deadlines of all calls; one that has not ended by then hangs."""
DROP_SHARE = 0.02
"""Bursts whose connection is dropped before the answers."""
_WINDOW = 0x7FFFFFFF


@dataclass
class Tally:
    """What was sent, and what came of it.

    Attributes:
        sent: requests by kind.
        ended: calls by how they ended: answered, reset, cut (by the end of the connection),
            dropped (by the client), unanswered.
        unanswered: the paths of the last ones.
    """

    sent: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """All requests."""
        return self.sent.total()


class Connection:
    """One connection whose frames the caller writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._data = b""

    def send(self, *frames: bytes) -> None:
        """Writes without waiting."""
        if not self._writer.is_closing():
            self._writer.write(b"".join(frames))

    async def sent(self) -> None:
        """Waits until the socket has taken what was written."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def frames(self) -> list[tuple[int, int, int, bytes]]:
        """The next frames; none at the end of the connection."""
        while True:
            found = http2.frames(self._data)
            if found:
                self._data = self._data[sum(9 + len(each[3]) for each in found) :]
                return found
            try:
                more = await self._reader.read(1 << 18)
            except OSError:
                more = b""
            if not more:
                return []
            self._data += more

    async def ends(self) -> None:
        """Reads on until the server closes the connection."""
        with contextlib.suppress(OSError):
            while await self._reader.read(1 << 18):
                pass

    def drop(self) -> None:
        """Resets the connection, as a host that vanishes does."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection to the server, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


HELLO = (
    http2.PREFACE
    + http2.settings(_4=_WINDOW)
    + http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65_535))
)


# Calls ----------------------------------------------------------------------------------------


async def make_calls(port: int, random: Random, tally: Tally, until: int) -> None:
    """Calls on one connection, until the tally has so many requests."""
    async with connected(port) as connection:
        connection.send(HELLO)
        stream = 1
        for _ in range(0, random.choice(CALLS_COUNTS), BURST):
            if tally.count >= until:
                return
            burst = [draw(random) for _ in range(BURST)]
            open_streams: dict[int, str] = {}
            for call in burst:
                connection.send(*_frames_of(call, stream))
                open_streams[stream] = call.path
                stream += 2
            tally.sent["calls"] += len(burst)
            if random.random() < DROP_SHARE:
                connection.drop()
                tally.ended["dropped"] += len(burst)
                return
            try:
                async with asyncio.timeout(ANSWER_MAX_S):
                    await connection.sent()
                    alive = await _answers(connection, open_streams, tally)
            except TimeoutError:
                tally.ended["unanswered"] += len(open_streams)
                tally.unanswered.update(open_streams.values())
                return
            if not alive:
                tally.ended["cut"] += len(open_streams)
                return


def _frames_of(call: Call, stream: int) -> list[bytes]:
    flags = 0 if call.data else http2.END_STREAM
    block = call.headers
    frames = [http2.frame(http2.HEADERS, flags | http2.END_HEADERS, stream, block[:16_000])]
    if len(block) > 16_000:
        frames = [http2.frame(http2.HEADERS, flags, stream, block[:16_000])]
        for begin in range(16_000, len(block), 16_000):
            last = begin + 16_000 >= len(block)
            frames.append(
                http2.frame(
                    http2.CONTINUATION, http2.END_HEADERS if last else 0, stream,
                    block[begin : begin + 16_000],
                )
            )  # fmt: skip
    for begin in range(0, len(call.data), 16_000):
        last = begin + 16_000 >= len(call.data)
        ends = http2.END_STREAM if last else 0
        frames.append(http2.frame(http2.DATA, ends, stream, call.data[begin : begin + 16_000]))
    return frames


async def _answers(connection: Connection, open_streams: dict[int, str], tally: Tally) -> bool:
    """Reads until all streams have ended; False at the end of the connection."""
    while open_streams:
        frames = await connection.frames()
        if not frames:
            return False
        for kind, flags, stream, payload in frames:
            if kind == http2.SETTINGS and not flags & 1:
                connection.send(http2.frame(http2.SETTINGS, 1, 0))
            elif kind == http2.PING and not flags & 1:
                connection.send(http2.frame(http2.PING, 1, 0, payload))
            elif kind == http2.RST_STREAM and stream in open_streams:
                del open_streams[stream]
                tally.ended["reset"] += 1
            elif (
                kind in {http2.HEADERS, http2.DATA}
                and flags & http2.END_STREAM
                and stream in open_streams
            ):
                del open_streams[stream]
                tally.ended["answered"] += 1
    return True


# Connections that break the protocol ----------------------------------------------------------

Attack = Callable[[Connection, Random], Awaitable[int]]
"""Does its harm, and returns how many requests it counts for."""


async def _garbage(connection: Connection, random: Random) -> int:
    connection.send(random.choice((b"", http2.PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01")))
    connection.send(random.randbytes(random.choice((10, 1_000, 50_000))))
    return 1


async def _random_frames(connection: Connection, random: Random) -> int:
    connection.send(HELLO)
    for _ in range(50):
        payload = random.randbytes(random.choice((0, 4, 5, 8, 100)))
        connection.send(
            http2.frame(random.randrange(12), random.randrange(256), random.randrange(20), payload)
        )
    return 1


async def _rapid_reset(connection: Connection, random: Random) -> int:
    connection.send(HELLO)
    for stream in range(1, 201, 2):
        call = draw(random)
        connection.send(
            http2.frame(http2.HEADERS, http2.END_HEADERS, stream, call.headers[:16_000]),
            http2.frame(http2.RST_STREAM, 0, stream, struct.pack(">I", 8)),
        )
    await connection.sent()
    return 100


async def _control_flood(connection: Connection, random: Random) -> int:
    connection.send(HELLO)
    frame = random.choice(
        (
            http2.frame(http2.PING, 0, 0, b"12345678"),
            http2.settings(_4=1_000),
            http2.settings(_1=0) * 2,
            http2.frame(2, 0, 1, b"\0\0\0\0\0"),  # PRIORITY
            http2.frame(http2.DATA, 0, 0, b""),
            http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW)),
        )
    )
    connection.send(frame * 2_000)
    await connection.sent()
    return 1


async def _endless_headers(connection: Connection, random: Random) -> int:
    connection.send(HELLO, http2.frame(http2.HEADERS, 0, 1, http2.call_headers("/x")))
    for number in range(40):
        block = http2.header(b"x-%d" % number, random.randbytes(8_000))
        connection.send(http2.frame(http2.CONTINUATION, 0, 1, block))
    await connection.sent()
    return 1


async def _table_bomb(connection: Connection, random: Random) -> int:
    """One long header in the table of the compression, and many references to it."""
    name, value = b"x-bomb", b"y" * 3_500
    literal = b"\x40" + http2.header(name, value)[1:]
    connection.send(HELLO)
    for stream in range(1, 41, 2):
        block = http2.call_headers("/ddq.v1.DelayQueueService/GetTask")
        block += (literal if stream == 1 else b"") + b"\xbe" * random.choice((1, 5, 200))
        connection.send(
            http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, block)
        )
    await connection.sent()
    return 20


ATTACKS: tuple[Attack, ...] = (
    _garbage, _random_frames, _rapid_reset, _control_flood, _endless_headers, _table_bomb,
)  # fmt: skip
ATTACK_MAX_S = 2.0


async def attack(port: int, random: Random, tally: Tally) -> None:
    """One connection that breaks the protocol; the server may close it."""
    act = random.choice(ATTACKS)
    async with connected(port) as connection:
        with contextlib.suppress(TimeoutError):
            # The server may take no more of it.
            async with asyncio.timeout(ATTACK_MAX_S):
                count = await act(connection, random)
                tally.sent[act.__name__.strip("_").replace("_", " ")] += count
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.choice((0.0, 0.05, ATTACK_MAX_S))):
                await connection.ends()
        if random.random() < 0.5:
            connection.drop()


async def linger(port: int, random: Random, tally: Tally) -> None:
    """Connections that send very slowly, or nothing: each until the server closes it."""
    async with connected(port) as connection:
        tally.sent["slow connections"] += 1
        call = draw(random)
        data = b"".join([HELLO, *_frames_of(call, 1)])
        data = data[: random.choice((0, 5, 30, len(data) - 1))]
        ended = asyncio.create_task(connection.ends())
        try:
            for begin in range(0, len(data), 7):
                connection.send(data[begin : begin + 7])
                done, _ = await asyncio.wait({ended}, timeout=0.5)
                if done:
                    return
            await ended
        finally:
            ended.cancel()
