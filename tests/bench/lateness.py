"""How late deliveries are: tasks at a steady rate, delays drawn between two bounds.

    make bench-lateness
    make bench-lateness ARGS='--rate 500 --seconds 20'

Everything is measured by the store's clock: due time and delivery are both its own, so no clock of
this process takes part. Nothing is asserted: a busy machine makes a late queue.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import sys
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio

from ddq.server import ServerInfo, ServerOptions, run_server
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.bench import processes
from tests.support.rpc import seconds

TOPIC = "bench"
SETTLE_S = 30.0


@dataclass
class Measured:
    """Lateness of each delivery in ms, and how many ids were delivered."""

    lateness_ms: list[float] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


async def produce(queue: Any, options: argparse.Namespace) -> int:
    """Enqueues at the rate that was asked for; how many."""
    rng = random.Random(options.seed)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    total = int(options.rate * options.seconds)
    calls: set[asyncio.Task[Any]] = set()
    for i in range(total):
        delay_s = rng.uniform(options.min_delay, options.max_delay)
        spec = task_pb2.TaskSpec(
            id=f"t{i}", payload=bytes(options.payload_bytes), delay=seconds(delay_s)
        )
        # The rate is kept by the clock, not by the time that calls take.
        await asyncio.sleep(max(0.0, start_s + i / options.rate - loop.time()))
        call = asyncio.ensure_future(
            queue.Enqueue(pb.EnqueueRequest(topic=TOPIC, task=spec), timeout=30)
        )
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    return total


async def consume(queue: Any, measured: Measured) -> None:
    """Takes tasks as they come, and acks them."""
    while True:
        reply = await queue.Retrieve(
            pb.RetrieveRequest(topics=[TOPIC], max_tasks=10, wait=seconds(10)), timeout=30
        )
        for leased in reply.tasks:
            late_ns = (
                leased.receipt.store_time.ToNanoseconds() - leased.task.due_time.ToNanoseconds()
            )
            measured.lateness_ms.append(late_ns / 1e6)
            measured.ids.add(leased.task.id)
        items = [
            pb.BatchAckItem(id=leased.task.id, lease_token=leased.lease_token)
            for leased in reply.tasks
        ]
        if items:
            await queue.BatchAck(pb.BatchAckRequest(topic=TOPIC, items=items), timeout=30)


async def measure(address: str, options: argparse.Namespace) -> tuple[Measured, int]:
    """Producers and consumers against a server; ends when everything has come."""
    measured = Measured()
    async with grpc.aio.insecure_channel(address) as channel:
        queue: Any = queue_grpc.DelayQueueServiceStub(channel)
        consumers = [
            asyncio.create_task(consume(queue, measured)) for _ in range(options.consumers)
        ]
        total = await produce(queue, options)
        try:
            async with asyncio.timeout(options.max_delay + SETTLE_S):
                while len(measured.ids) < total:  # noqa: ASYNC110 - bounded by the line above
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
    return measured, total


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def report(measured: Measured, total: int, options: argparse.Namespace) -> str:
    """The figures, with what they were measured on."""
    late = measured.lateness_ms
    lines = [
        f"{total} tasks of {options.payload_bytes} bytes, {options.rate:g}/s",
        f"due {options.min_delay:g}-{options.max_delay:g} s ahead, {options.consumers} workers",
        f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        + (options.address or "embedded store, appendfsync always"),
        f"delivered: {len(measured.ids)} of {total}, in {len(late)} deliveries",
    ]
    if late:
        shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
        figures = ", ".join(f"{name} {percentile(late, share):.0f} ms" for name, share in shares)
        lines.append(f"lateness by the store's clock: {figures}")
        lines.append(f"early: {sum(value < 0 for value in late)}")
    return "\n".join(lines)


def arguments(given: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="lateness", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=200.0, help="tasks a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to enqueue")
    parser.add_argument("--min-delay", type=float, default=1.0, help="seconds")
    parser.add_argument("--max-delay", type=float, default=5.0, help="seconds")
    parser.add_argument("--consumers", type=int, default=4)
    parser.add_argument("--payload-bytes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the delays")
    parser.add_argument("--address", help="of a server that runs; without it one is started")
    options = parser.parse_args(given)
    if options.rate <= 0 or options.seconds <= 0 or options.consumers < 1:
        parser.error("--rate, --seconds and --consumers have to be greater than 0")
    if not 0 <= options.min_delay <= options.max_delay:
        parser.error("--min-delay has to be from 0 to --max-delay")
    return options


async def bench(options: argparse.Namespace) -> str:
    """Measures against the server that was named, or one of its own in a process of its own."""
    if options.address:
        return report(*await measure(options.address, options), options)
    with TemporaryDirectory(prefix="ddq-bench-") as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.lateness", "--serve", folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            address = (await server.stdout.readline()).decode().strip()
            if not address:
                raise SystemExit("lateness: the server did not start")
            return report(*await measure(address, options), options)
        finally:
            await processes.end(server)


async def serve(folder: str) -> None:
    """A server in a process of its own, so that the load does not wait for its own event loop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)

    def ready(info: ServerInfo) -> None:
        sys.stdout.write(f"{info.address}\n")
        sys.stdout.flush()

    await run_server(ServerOptions("127.0.0.1:0", f"embedded:{folder}"), stop=stop, on_ready=ready)


def main() -> None:
    """The command line."""
    given = sys.argv[1:]
    if given[:1] == ["--serve"]:
        asyncio.run(serve(given[1]))
        return
    sys.stdout.write(asyncio.run(bench(arguments(given))) + "\n")


if __name__ == "__main__":
    main()
