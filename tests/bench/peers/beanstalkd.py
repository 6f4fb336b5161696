"""The driver of beanstalkd, over its text protocol: put, reserve, delete."""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import StreamReader, StreamWriter

from tests.bench.peers.driver import Deliveries, Job, Task, current, produce

PRIORITY = 1_024
TIME_TO_RUN_S = 120


class Connection:
    """One connection, which answers one command at a time."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, job: Job) -> Connection:
        return cls(*await asyncio.open_connection(job.host, job.port))

    async def put(self, task: Task) -> None:
        # Delays are whole seconds; rounded up, so that no task is requested too early.
        delay_s = max(0, math.ceil(task.due_ms / 1_000 - time.time()))
        size = len(task.payload)
        head = f"put {PRIORITY} {delay_s} {TIME_TO_RUN_S} {size}\r\n".encode()
        await self._ask(head + task.payload + b"\r\n", b"INSERTED")

    async def reserve(self) -> tuple[bytes, bytes]:
        """The id and the payload of the next task."""
        _, number, size = await self._ask(b"reserve\r\n", b"RESERVED")
        payload = await self._reader.readexactly(int(size) + 2)
        return number, payload[:-2]

    async def delete(self, number: bytes) -> None:
        await self._ask(b"delete " + number + b"\r\n", b"DELETED")

    async def _ask(self, command: bytes, expected: bytes) -> list[bytes]:
        self._writer.write(command)
        words = (await self._reader.readline()).split()
        if not words or words[0] != expected:
            raise RuntimeError(f"beanstalkd answered {words}, expected {expected!r}")
        return words


async def enqueue(job: Job) -> None:
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(min(job.callers, 500)):
        free.put_nowait(await Connection.open(job))

    async def one(task: Task) -> None:
        connection = await free.get()
        await connection.put(task)
        free.put_nowait(connection)

    await produce(job, one)


async def work(job: Job) -> None:
    deliveries = Deliveries(job)
    connections = [await Connection.open(job) for _ in range(job.concurrency)]

    async def consume(connection: Connection) -> None:
        while True:
            number, payload = await connection.reserve()
            deliveries.record(payload)
            await connection.delete(number)

    consumers = [asyncio.create_task(consume(connection)) for connection in connections]
    deliveries.ready()
    await deliveries.wait()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    deliveries.save()


if __name__ == "__main__":
    asyncio.run(work(current()) if current().do == "work" else enqueue(current()))
