"""--processes: several processes of one parent, as their users meet them."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc.aio
from prometheus_client.parser import text_string_to_metric_families

from ddq.client import Client
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from tests.cli.conftest import PROGRAM, TIMEOUT_S
from tests.support.store import StoreServer

FREE = "127.0.0.1:0"
CALLERS = 12
HOUR, SOON, LONG = (timedelta(seconds=each) for each in (3_600, 0.05, 10))


@dataclass
class Parent:
    """`ddq serve` or `ddq scheduler` with --processes.

    Attributes:
        line: what it said when it was ready.
        process: of the parent.
    """

    line: str
    process: asyncio.subprocess.Process

    @property
    def address(self) -> str:
        (found,) = re.findall(r" on (\S+) in", self.line)
        return str(found)

    @property
    def pids(self) -> list[int]:
        """Its processes, in the order of their start."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    async def figures(self) -> dict[str, float]:
        """The samples of /metrics by name{label=value}, without those that are 0."""
        (url,) = re.findall(r"metrics on (\S+)", self.line)

        def read() -> str:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:  # noqa: S310 - http only
                return str(reply.read().decode())

        found = {}
        for family in text_string_to_metric_families(await asyncio.to_thread(read)):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return {name: value for name, value in found.items() if value}

    async def enqueued(self) -> float:
        """The successful Enqueue calls of all processes."""
        return (await self.figures()).get("ddq_rpcs_total{code=OK,method=Enqueue,reason=}", 0)

    async def logged(self, words: str) -> str:
        """Waits for a line of the log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            while words not in (line := (await self.process.stderr.readline()).decode()):
                assert line, "the log has ended"
        return line

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops it; returns the exit status when it has ended."""
        self.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


async def started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def parent(command: str, store: StoreServer, *arguments: str) -> AsyncIterator[Parent]:
    """Two processes until the block ends."""
    process = await started(
        command, "--store", store.url, "--durability", "fast", "--processes", "2",
        "--metrics-listen", FREE, *arguments,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = (await process.stdout.readline()).decode()
            assert line, (await process.stderr.read()).decode()
        yield Parent(line, process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def refused(*arguments: str) -> tuple[int | None, str]:
    """Runs a command that ends by itself: exit status and stderr."""
    process = await started(*arguments)
    async with asyncio.timeout(TIMEOUT_S):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@contextmanager
def watched(pids: Sequence[int]) -> Iterator[list[int]]:
    """Descriptors that become readable when a process has ended."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def all_gone(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        found, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], TIMEOUT_S)
        assert found


class Callers:
    """Clients in any language: each on a connection of its own, and none repeats what failed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = False
        self._done = asyncio.Condition()
        self.ids: list[str] = []
        self.failures: Counter[str] = Counter()

    async def run(self, name: int) -> None:
        options = [("ddq.test", name)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = queue_grpc.DelayQueueServiceStub(channel)
            while not self._stop:
                request = pb.EnqueueRequest(topic="jobs")
                request.task.id = f"{name}-{len(self.ids)}"
                request.task.delay.seconds = 3_600
                try:
                    await stub.Enqueue(request, timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    self.failures[f"{error.code().name}: {error.details()}"] += 1
                    # An address without a server fails at once.
                    await asyncio.sleep(0.01)
                async with self._done:
                    self.ids.append(request.task.id)
                    self._done.notify_all()

    async def more(self, count: int) -> None:
        """Waits until so many more calls have ended."""
        target = len(self.ids) + count
        async with self._done, asyncio.timeout(TIMEOUT_S):
            await self._done.wait_for(lambda: len(self.ids) >= target)

    def stop(self) -> None:
        self._stop = True


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Callers]:
    callers = Callers(address)
    async with asyncio.TaskGroup() as group:
        for name in range(CALLERS):
            group.create_task(callers.run(name))
        try:
            await callers.more(5 * CALLERS)
            yield callers
        finally:
            callers.stop()


async def test_a_reload_refuses_no_call_and_loses_none(store_server: StoreServer) -> None:
    async with parent("serve", store_server, "--listen", FREE) as it:
        before = it.pids
        async with calling(it.address) as callers:
            for _ in range(2):
                it.process.send_signal(signal.SIGHUP)
                await it.logged("reload: done")
                await callers.more(5 * CALLERS)
        assert not callers.failures
        assert not {*before} & {*it.pids}
        # The calls of processes that have ended are counted too.
        assert await it.enqueued() == len(callers.ids)
        async with Client(it.address) as client:
            assert (await client.stats("jobs")).counts.scheduled == len(callers.ids)
        assert await it.end() == 0


async def test_a_killed_process_is_replaced_and_callers_continue(store_server: StoreServer) -> None:
    async with (
        parent("serve", store_server, "--listen", FREE) as it,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(Client(it.address)) for _ in range(CALLERS)]

        async def enqueue(client: Client, name: int) -> None:
            for number in range(50):
                await client.enqueue("jobs", b"x", task_id=f"{name}-{number}", delay=HOUR)

        async with asyncio.TaskGroup() as group:
            for name, client in enumerate(clients):
                group.create_task(enqueue(client, name))
            counted = await it.enqueued()
            killed, other = it.pids
            os.kill(killed, signal.SIGKILL)
            line = await it.logged("another starts")
            assert f"(pid {killed}) was killed by SIGKILL" in line
            await it.logged("works")
        assert len(it.pids) == 2
        assert other in it.pids
        figures = await it.figures()
        assert (figures["ddq_processes"], figures["ddq_process_ends_total"]) == (2, 1)
        assert await it.enqueued() >= counted, "a counter never goes back"
        assert (await clients[0].stats("jobs")).counts.scheduled == 50 * CALLERS
        assert await it.end() == 0


async def test_a_stop_answers_calls_that_wait_and_ends_all(store_server: StoreServer) -> None:
    async with (
        parent("serve", store_server, "--listen", FREE) as it,
        AsyncExitStack() as stack,
    ):
        waits = []
        for name in range(CALLERS):
            channel = grpc.aio.insecure_channel(it.address, options=[("ddq.test", name)])
            await stack.enter_async_context(channel)
            stub = queue_grpc.DelayQueueServiceStub(channel)
            request = pb.RetrieveRequest(topics=["jobs"], max_tasks=1)
            request.wait.seconds = 60
            waits.append(asyncio.ensure_future(stub.Retrieve(request, timeout=90)))
        async with asyncio.timeout(TIMEOUT_S):
            while (await it.figures()).get("ddq_rpcs_running{method=Retrieve}") != CALLERS:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        with watched(it.pids) as descriptors:
            assert await it.end(signal.SIGINT) == 0
            await all_gone(descriptors)
        assert [len(reply.tasks) for reply in await asyncio.gather(*waits)] == [0] * CALLERS
        port = int(it.address.rpartition(":")[2])
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


async def test_processes_end_when_their_parent_is_killed(store_server: StoreServer) -> None:
    async with parent("serve", store_server, "--listen", FREE) as it:
        with watched(it.pids) as descriptors:
            assert len(descriptors) == 2
            assert await it.end(signal.SIGKILL) == -signal.SIGKILL
            await all_gone(descriptors)


async def test_a_port_in_use_is_one_line(store_server: StoreServer) -> None:
    async with parent("serve", store_server, "--listen", FREE) as it:
        serve = ("serve", "--store", store_server.url, "--durability", "fast")
        for several in (("--processes", "2"), ()):
            status, err = await refused(*serve, "--listen", it.address, *several)
            assert (status, err.count("\n")) == (5, 1), err
            assert f"cannot listen on {it.address}: the address is in use" in err
            assert "choose another one" in err
        # The other one was not disturbed.
        async with Client(it.address) as client:
            await client.enqueue("jobs", b"x")


async def test_a_mistake_at_the_start_is_reported_once(
    store_server: StoreServer, tmp_path: Path
) -> None:
    nowhere = f"unix://{tmp_path}/none"
    several = ("--processes", "3", "--listen", FREE)
    for arguments, expected, words in (
        (("serve", "--store", "foo://bar", *several), 5, "foo://bar"),
        (("serve", "--store", f"embedded:{tmp_path}", *several), 2, "leave --processes out"),
        (("scheduler", "--store", f"embedded:{tmp_path}", "--processes", "2"), 5, "ddq serve"),
        (("serve", "--store", nowhere, "--store-wait-ms", "1", *several), 5, "cannot be used"),
        (("serve", "--store", store_server.url, "--processes", "0"), 2, "--processes"),
    ):
        status, err = await refused(*arguments)
        assert (status, err.count("\n"), err[:5]) == (expected, 1, "ddq: "), err
        assert words in err


async def test_a_stop_while_the_store_is_away_is_one_line(tmp_path: Path) -> None:
    process = await started("serve", "--store", f"unix://{tmp_path}/none", "--processes", "2")
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    assert " WARNING process 1 " in line
    process.terminate()
    async with asyncio.timeout(TIMEOUT_S):
        _, err = await process.communicate()
    assert process.returncode == 5
    assert b"stopped while it waited" in err
    assert err.count(b"\n") == 1


async def test_schedulers_share_the_work_and_take_over(store_server: StoreServer) -> None:
    async with (
        parent("serve", store_server, "--listen", FREE) as server,
        parent("scheduler", store_server, "--leader-lease-ms", "300") as it,
        Client(server.address) as client,
    ):
        await client.create_topic("jobs", shards=8)

        async def deliver(name: str) -> None:
            for number in range(16):
                await client.enqueue("jobs", b"x", task_id=f"{name}-{number}", delay=SOON)
            ids: set[str] = set()
            while len(ids) < 16:
                for lease in await client.retrieve("jobs", max_tasks=16, wait=LONG):
                    ids.add(lease.task.id)
                    await client.ack(lease)

        await deliver("a")
        os.kill(it.pids[0], signal.SIGKILL)
        await deliver("b")
        await it.logged("works")
        await deliver("c")
        figures = await it.figures()
        assert figures["ddq_processes"] == 2
        assert figures["ddq_scheduler_shards"] == 8, "not a sum: each looks after all of them"
        assert await it.end() == 0
