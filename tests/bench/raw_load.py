"""Enqueues as frames of HTTP/2, at any rate: they cost a fraction of what the server needs."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from ddq.v1 import delay_queue_service_pb2 as pb
from tests.bench.peers.ddq import TOPIC
from tests.bench.peers.driver import Job
from tests.support import http2

PATH = "/ddq.v1.DelayQueueService/Enqueue"
TICK_S = 0.005
CALL_TIMEOUT_S = 10
_WINDOW = 0x7FFFFFFF
_HELLO = (
    http2.PREFACE
    + http2.settings(_4=_WINDOW)
    + http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65_535))
)
_HEADERS = http2.call_headers(PATH, [(b"grpc-timeout", b"%dS" % CALL_TIMEOUT_S)])
_REASONS = ((b"server is overloaded", "overloaded"), (b"no room for", "topic full"))


@dataclass
class Ends:
    """How calls ended.

    Attributes:
        accepted: numbers of the tasks.
        unknown: numbers of those whose call was cut, or failed in another way than refused.
        counts: calls by how they ended.
        call_ms: times of the calls that were accepted.
    """

    accepted: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    call_ms: list[float] = field(default_factory=list)


class RawConnection:
    """One connection.

    Args:
        on_end: called with the number of a task, how its call ended, and how long it took in ms.
    """

    def __init__(self, ends: Ends, on_end: Callable[[int, str, float], None]) -> None:
        self._ends = ends
        self._on_end = on_end
        self._stream = 1
        self._open: dict[int, tuple[int, float]] = {}
        self._has_data: set[int] = set()

    async def open(self, address: str) -> None:
        """Connects."""
        host, _, port = address.rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(_HELLO)
        self._reading = asyncio.create_task(self._read())

    def call(self, number: int, message: bytes) -> None:
        """Begins a call."""
        stream = self._stream
        self._stream += 2
        self._open[stream] = number, time.monotonic()
        self._writer.write(
            http2.frame(http2.HEADERS, http2.END_HEADERS, stream, _HEADERS)
            + http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(message))
        )

    @property
    def open_count(self) -> int:
        """Calls that have not ended."""
        return len(self._open)

    async def close(self) -> None:
        """Closes it; calls that have not ended are unknown."""
        self._reading.cancel()
        await asyncio.wait({self._reading})
        self._writer.transport.abort()
        for stream in [*self._open]:
            self._end(stream, "cut")

    async def _read(self) -> None:
        data = b""
        with suppress(OSError):
            while more := await self._reader.read(1 << 18):
                data += more
                found = http2.frames(data)
                data = data[sum(9 + len(each[3]) for each in found) :]
                for kind, flags, stream, payload in found:
                    self._frame(kind, flags, stream, payload)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.DATA:
            self._has_data.add(stream)
        elif kind == http2.SETTINGS and not flags & 1:
            self._writer.write(http2.frame(http2.SETTINGS, 1, 0))
        elif kind == http2.PING and not flags & 1:
            self._writer.write(http2.frame(http2.PING, 1, 0, payload))
        if kind == http2.RST_STREAM and stream in self._open:
            self._end(stream, "reset")
        elif kind == http2.HEADERS and flags & http2.END_STREAM and stream in self._open:
            how = "accepted" if stream in self._has_data else "failed"
            for words, reason in _REASONS:
                if words in payload:
                    how = reason
            self._end(stream, how)

    def _end(self, stream: int, how: str) -> None:
        number, began_s = self._open.pop(stream)
        self._has_data.discard(stream)
        took_ms = (time.monotonic() - began_s) * 1_000
        self._ends.counts[how] += 1
        if how == "accepted":
            self._ends.accepted.add(number)
            self._ends.call_ms.append(took_ms)
        elif how in {"reset", "cut", "failed"}:
            self._ends.unknown.add(number)
        self._on_end(number, how, took_ms)


class RawLoad:
    """Connections over which the calls are spread.

    Args:
        job: makes the tasks, which the worker of a benchmark recognizes.
        numbers: of the tasks.
    """

    def __init__(self, address: str, job: Job, numbers: Iterator[int], connections: int) -> None:
        self.ends = Ends()
        self._address = address
        self._job = job
        self._numbers = numbers
        self._ended = asyncio.Event()
        self._connections = [RawConnection(self.ends, self._on_end) for _ in range(connections)]
        self._next = 0
        self._last = "", 0.0

    async def open(self) -> None:
        """Connects."""
        await asyncio.gather(*(each.open(self._address) for each in self._connections))

    async def close(self) -> None:
        """Waits for the calls that are under way, as long as they have, and closes."""
        end_s = time.monotonic() + CALL_TIMEOUT_S + 1
        while self.open_count and time.monotonic() < end_s:
            self._ended.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), end_s - time.monotonic())
        await asyncio.gather(*(each.close() for each in self._connections))

    @property
    def open_count(self) -> int:
        """Calls that have not ended."""
        return sum(each.open_count for each in self._connections)

    def _on_end(self, number: int, how: str, took_ms: float) -> None:
        self._ended.set()
        self._last = how, took_ms

    async def one(self) -> tuple[str, float]:
        """One call, alone: how it ended, and how long it took in ms."""
        self._ended.clear()
        self._call()
        await self._ended.wait()
        return self._last

    def _call(self) -> None:
        number = next(self._numbers)
        task = self._job.task(number)
        request = pb.EnqueueRequest(topic=TOPIC)
        request.task.id = f"task-{number}"
        request.task.payload = task.payload
        request.task.due_time.FromMilliseconds(task.due_ms)
        self._next = (self._next + 1) % len(self._connections)
        self._connections[self._next].call(number, request.SerializeToString())

    async def closed(self, callers: int, seconds: float) -> None:
        """As callers do that wait for each answer."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._ended.clear()
            while self.open_count < callers:
                self._call()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1.0)

    async def open_loop(self, rate: float, seconds: float) -> int:
        """At a rate, whatever becomes of the calls; how many there were."""
        began_s = time.monotonic()
        sent = 0
        while (past_s := time.monotonic() - began_s) < seconds:
            wanted = int(past_s * rate)
            while sent < wanted:
                self._call()
                sent += 1
            await asyncio.sleep(TICK_S)
        return sent
