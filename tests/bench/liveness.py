"""How late a task is while the store does other work: a task that is due every 50 ms, side by side.

    make bench-liveness
    make bench-liveness ARGS='--quick'
    make bench-liveness ARGS='--only backlogs --only tombstones --json liveness.json'

"ready" is the promotion of the probes by the store's clock, from their topic's journal;
"delivered" is their first lease. While a store is stopped nothing can be promoted: there the time
from its return counts. A row is within its target if its worst probe was ready within 250 ms. With
--strict the exit status is 1 if one is not. Without it nothing is asserted: a busy machine makes a
late queue.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from chaos.clusters.process import ShardedCluster
from ddq.config import Settings
from ddq.store.job_values import Removal
from ddq.store.keys import TOPICS, ShardId
from ddq.store.open import Store
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.bench.deployment import Served, cluster_store, embedded_store, opened, serving
from tests.bench.probes import (
    BATCH,
    EVERY_MS,
    PROBE,
    QUICK,
    TARGET_MS,
    Row,
    Size,
    create,
    measure,
    nothing,
)
from tests.support.queue import call, new_task
from tests.support.rpc import seconds

AWAY = Settings(durability="fast", store_checks=False, drain_ms=1)
"""What is measured is how long the queue stands, not what its replies wait for."""
SETTLED_MAX_COUNT = 100
"""Scripts in a second of a store that is asked little."""


# The rows on one store ---------------------------------------------------------------------


@asynccontextmanager
async def single(
    prepare: Callable[[Store], Awaitable[None]] | None = None, **settings: Any
) -> AsyncIterator[tuple[Served, int]]:
    """A server on one Valkey, and the process id of that."""
    async with embedded_store() as (embedded, url), opened(url) as store:
        await create(store, PROBE, journal=True)
        if prepare is not None:
            await prepare(store)
        async with serving(url, store, replace(AWAY, **settings)) as served:
            await asyncio.sleep(2.0)
            yield served, embedded.pid


async def idle(name: str, size: Size) -> Row:
    """The store does no other work."""
    async with single() as (served, _):
        return await measure(name, served, size, nothing)


def stopped(stop_s: float) -> Callable[[str, Size], Awaitable[Row]]:
    """The store's process is stopped for a while."""

    async def row(name: str, size: Size) -> Row:
        async with single() as (served, pid):

            async def stop(_: Served) -> float:
                os.kill(pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(stop_s)
                finally:
                    # Read before the signal: the store may promote before this process runs again.
                    back_s = time.time()
                    os.kill(pid, signal.SIGCONT)
                return back_s

            return await measure(name, served, size, stop)

    return row


async def backlogs(name: str, size: Size) -> Row:
    """Many topics with many tasks, all due at once: they were paused, and are resumed."""
    busy = [f"busy{number}" for number in range(size.topics)]

    async def prepare(store: Store) -> None:
        for topic in busy:
            await create(store, topic)
            made = await store.topics.require(topic, call())
            await store.topics.update(made, replace(made, paused=True), call())
            for at in range(0, size.backlog, BATCH):
                count = min(BATCH, size.backlog - at)
                tasks = [new_task(f"t{at + number}") for number in range(count)]
                await store.jobs.enqueue(topic, tasks, call())

    async def resume(served: Served) -> None:
        for topic in busy:
            made = await served.store.topics.require(topic, call())
            await served.store.topics.update(made, replace(made, paused=False), call())

    async with single(prepare) as (served, _):
        return await measure(name, served, size, resume)


async def tombstones(name: str, size: Size) -> Row:
    """Many tombstones of the probes' own topic, whose retention ends at the same moment."""

    async def prepare(store: Store) -> None:
        for at in range(0, size.tombstones, BATCH):
            ids = [f"t{at + number}" for number in range(min(BATCH, size.tombstones - at))]
            tasks = [new_task(task_id, delay_ms=3_600_000) for task_id in ids]
            await store.jobs.enqueue(PROBE, tasks, call())
            await store.jobs.remove(PROBE, [Removal(task_id) for task_id in ids], call())

    async def expire(served: Served) -> None:
        topic = await served.store.topics.require(PROBE, call())
        settings = replace(topic.settings, tombstone_retention_ms=1)
        await served.store.topics.update(topic, replace(topic, settings=settings), call())

    async with single(prepare, sweep_interval_ms=1_000) as (served, _):
        return await measure(name, served, size, expire)


async def idle_topics(name: str, size: Size) -> Row:
    """Many topics without tasks; hints are lost, topics are made, and all of them are listed."""

    async def prepare(store: Store) -> None:
        for number in range(size.idle_topics):
            await create(store, f"idle{number:05}")

    async def disturb(served: Served) -> None:
        node = await served.store.router.topology.node_of(TOPICS, float("inf"))
        connection = served.store.router.topology.connect(node)
        await connection.send([("CLIENT", "KILL", "TYPE", "pubsub")], 5)
        await connection.close()
        for number in range(20):
            await create(served.store, f"new{number}")
        token = ""
        while True:
            page = await served.admin.ListTopics(
                admin_pb.ListTopicsRequest(page_size=100, page_token=token), timeout=30
            )
            if not (token := page.next_page_token):
                return

    async with single(prepare) as (served, _):
        return await measure(name, served, size, disturb)


async def settled(store: Store, looks: int) -> None:
    """Until the store has been asked so often, and is asked little any more."""
    node = await store.router.topology.node_of(TOPICS, float("inf"))
    connection = store.router.topology.connect(node)
    try:
        before = 0
        async with asyncio.timeout(120):
            while True:
                (reply,) = await connection.send([("INFO", "commandstats")], 5)
                assert isinstance(reply, bytes)
                found = re.search(rb"cmdstat_evalsha:calls=(\d+)", reply)
                ran = int(found[1]) if found else 0
                if ran >= looks and ran - before < SETTLED_MAX_COUNT:
                    return
                before = ran
                await asyncio.sleep(1.0)
    finally:
        await connection.close()


async def retrieves(name: str, size: Size) -> Row:
    """Many Retrieves wait for the probes' topic, and one gets each of them."""
    async with single() as (served, _):
        waiting = [
            asyncio.ensure_future(
                served.queues[number % len(served.queues)].Retrieve(
                    pb.RetrieveRequest(topics=[PROBE], max_tasks=1, wait=seconds(60)), timeout=90
                )
            )
            for number in range(size.retrieves)
        ]
        try:
            await settled(served.store, size.retrieves)
            return await measure(name, served, size, nothing, worker=False)
        finally:
            for waits in waiting:
                waits.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


# The rows on a Cluster ---------------------------------------------------------------------


async def topic_apart(cluster: ShardedCluster, prefix: str, *others: str) -> str:
    """A name whose shard another master has than those of the keys."""
    owners = {(await cluster.owner(cluster.slot_of(key))).name for key in others}
    for number in itertools.count():
        name = f"{prefix}{number}"
        slot = cluster.slot_of(ShardId(name, 0).key("control"))
        if (await cluster.owner(slot)).name not in owners:
            return name
    raise AssertionError("unreachable")


async def shard_moves(name: str, size: Size) -> Row:
    """The slot of another topic, which has tasks due, is on its way to another master."""
    probe_key = ShardId(PROBE, 0).key("control")
    async with cluster_store() as cluster, opened(cluster.store_url) as store:
        moving = await topic_apart(cluster, "moving", probe_key)
        slot = cluster.slot_of(ShardId(moving, 0).key("control"))
        source = await cluster.owner(slot)
        target = await cluster.owner(cluster.slot_of(probe_key))
        await create(store, PROBE, journal=True)
        await create(store, moving)

        async def move(served: Served) -> None:
            await served.store.jobs.enqueue(moving, [new_task(f"t{n}") for n in range(100)], call())
            await cluster.open_slot(slot, source, target)
            control = ShardId(moving, 0).key("control")
            await cluster.command(
                source, "MIGRATE", target.ip, str(target.port), control, "0", "5000"
            )
            await asyncio.sleep(size.hang_s)
            await cluster.move_keys(slot, source, target)
            for master in (target, source):
                target_id = await cluster._id(target)
                await cluster.command(master, "CLUSTER", "SETSLOT", str(slot), "NODE", target_id)

        async with serving(cluster.store_url, store, AWAY) as served:
            await asyncio.sleep(2.0)
            return await measure(name, served, size, move, topics=[moving, PROBE])


async def registry_hangs(name: str, size: Size) -> Row:
    """The master of the table of topics is stopped; a topic is made meanwhile."""
    async with cluster_store() as cluster, opened(cluster.store_url) as store:
        hung = await cluster.owner(cluster.slot_of(TOPICS))
        if await cluster.owner(cluster.slot_of(ShardId(PROBE, 0).key("control"))) == hung:
            raise SystemExit("liveness: the probes' topic is beside the table of topics")
        await create(store, PROBE, journal=True)

        async def hang(_: Served) -> None:
            await cluster.pause(hung)
            try:
                await asyncio.sleep(size.hang_s)
            finally:
                await cluster.resume(hung)

        settings = replace(AWAY, sweep_interval_ms=1_000)
        async with serving(cluster.store_url, store, settings) as served:
            await asyncio.sleep(2.0)
            return await measure(name, served, size, hang)


ROWS: dict[str, tuple[str, Callable[[str, Size], Awaitable[Row]]]] = {
    "idle": ("nothing else", idle),
    "stop-0.8": ("the store stops for 0.8 s", stopped(0.8)),
    "stop-1.5": ("the store stops for 1.5 s", stopped(1.5)),
    "stop-3": ("the store stops for 3 s", stopped(3.0)),
    "backlogs": ("{0.topics} topics with {0.backlog:,} tasks each", backlogs),
    "tombstones": ("{0.tombstones:,} tombstones", tombstones),
    "idle-topics": ("{0.idle_topics:,} idle topics", idle_topics),
    "shard-moves": ("a shard of a Cluster moves", shard_moves),
    "registry-hangs": ("the registry's master hangs for {0.hang_s:g} s", registry_hangs),
    "retrieves": ("{0.retrieves:,} Retrieves wait", retrieves),
}


# The report --------------------------------------------------------------------------------


def line(row: Row) -> str:
    """One row of the report."""
    target = "within" if row.within else "OVER"
    lost = f", {row.unready} of {row.probes} never ready" if row.unready else ""
    return f"{row.name:<46} {row.ready_ms:>8} {row.delivered_ms:>10}  {target}{lost}"


async def bench(options: argparse.Namespace) -> list[Row]:
    """Measures one row after the other, each on a store of its own."""
    size = QUICK if options.quick else Size()
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    sys.stdout.write(
        f"worst lateness in ms of a task that is due every {EVERY_MS} ms; target {TARGET_MS} ms\n"
        f"machine: {machine}\n\n{'while':<46} {'ready':>8} {'delivered':>10}  target\n"
    )
    rows = []
    for key, (title, run) in ROWS.items():
        if not options.only or key in options.only:
            rows.append(await run(title.format(size), size))
            sys.stdout.write(line(rows[-1]) + "\n")
            sys.stdout.flush()
    if options.json is not None:
        found = [asdict(row) | {"within": row.within} for row in rows]
        report = {"target_ms": TARGET_MS, "machine": machine, "size": asdict(size), "rows": found}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return rows


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="liveness", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller, in about two minutes")
    parser.add_argument("--only", action="append", choices=[*ROWS], help="may be given repeatedly")
    parser.add_argument("--json", type=Path, help="file to write the figures to as well")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a row is over its target")
    return parser.parse_args()


def main() -> int:
    """The command line."""
    options = arguments()
    rows = asyncio.run(bench(options))
    return int(options.strict and not all(row.within for row in rows))


if __name__ == "__main__":
    sys.exit(main())
