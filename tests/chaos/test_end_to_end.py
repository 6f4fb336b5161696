"""A real server, many clients, and the judge: what is right is VALID, what was lost is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import redis.asyncio

from chaos.checker.bounds import Bounds
from chaos.checker.judge import judge
from chaos.history.final import collect_final
from chaos.history.notes import RunNote, TopicSettings
from chaos.history.operations import (
    RetrySettings,
)
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.history.run_folder import Run
from chaos.history.writer import HistoryWriter
from chaos.systems.ddq.journal import write_journal
from ddq.client import Client, Lease, NewTask, OnConflict, RetryPolicy
from ddq.client import TopicSettings as Settings
from ddq.errors import DdqError
from tests.chaos.test_promises import broken, explanation
from tests.support.server import RunningServer

TOPIC, SHARDS = "work", 2
BOUNDS = Bounds(lateness_ms=10_000)
"""A task that is never promoted breaks it. Server, clients and test share one process here, so how
late a promotion is depends on what else the machine does; tests/scheduler measure that in virtual
time, tests/chaos/test_promises.py judges figures that were made up."""
RETRY = RetryPolicy(3, timedelta(milliseconds=20), timedelta(milliseconds=50), 1.5, 0.1)


def ms(value: float) -> timedelta:
    return timedelta(milliseconds=value)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Expects that a request may be refused."""
    with contextlib.suppress(DdqError):
        yield


async def produce(one: Recorder, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(30):
        task = NewTask(f"{seed}-{number}".encode(), f"{seed}-{number}", delay=ms(rng.randrange(80)))
        await one.enqueue_task(TOPIC, task)
        if number % 5 == 0:
            await one.enqueue_task(TOPIC, task)
        if number % 4 == 1:
            await asyncio.sleep(rng.random() * 0.08)
            with refused():
                await one.cancel(TOPIC, task.id or "", revoke_lease=number % 8 == 1)
        if number % 6 == 2:
            with refused():
                await one.reschedule(TOPIC, task.id or "", delay=ms(rng.randrange(50)))
        if number % 6 == 4:
            for event in range(3):
                debounced = NewTask(
                    f"{task.id}/{event}".encode(), task.id, delay=ms(40),
                    on_conflict=OnConflict.DEBOUNCE, debounce_limit=ms(60),
                )  # fmt: skip
                with refused():
                    await one.enqueue_task(TOPIC, debounced)
                await asyncio.sleep(rng.random() * 0.04)
        if number % 10 == 3:
            again = NewTask(
                b"again", task.id, on_conflict=OnConflict.REPLACE_IF_FINISHED, delay=ms(5)
            )
            with refused():
                await one.enqueue_task(TOPIC, again)
    with refused():
        await one.get_task(TOPIC, "unknown")


async def work(one: Recorder, seed: int, stop: asyncio.Event) -> None:
    rng = random.Random(seed)
    while not stop.is_set():
        request_id = f"{seed}-{rng.random()}"
        leases = await one.retrieve(
            TOPIC, max_tasks=3, lease=ms(150), wait=ms(50), request_id=request_id
        )
        if rng.random() < 0.2:
            await one.retrieve(TOPIC, max_tasks=3, lease=ms(150), request_id=request_id)
        for lease in leases:
            with refused():
                await settle(one, lease, rng.random())


async def settle(one: Recorder, lease: Lease, chance: float) -> None:
    if chance < 0.1:
        return  # a worker that died
    if chance < 0.2:
        await one.nack(lease, delay=ms(10) if chance < 0.15 else None)
    elif chance < 0.3:
        await one.release(lease)
    elif chance < 0.35:
        await one.snooze(lease, ms(30))
        await one.snooze(lease, ms(30))
    elif chance < 0.4:
        await asyncio.sleep(0.2)
        await one.ack(lease)
    elif chance < 0.45:
        payload = b"the next" if chance < 0.425 else None
        await one.run_again(lease, delay=ms(30), payload=payload)
        await one.run_again(lease, delay=ms(30), payload=payload)
    elif chance < 0.5:
        await one.extend(lease, ms(300))
        await one.ack_batch([lease])
    else:
        await one.ack(lease)
    if chance > 0.9:
        await one.ack(lease)


async def run_once(server: RunningServer, run: Run) -> None:
    """Load, drain, collect."""
    async with Client(server.address) as client:
        await client.create_topic(
            TOPIC, shards=SHARDS, settings=Settings(journal=True, default_retry_policy=RETRY)
        )
        settings = TopicSettings(SHARDS, RetrySettings(3, 20, 50, 1.5, 0.1), journal=True)
        with HistoryWriter(run.history) as writer:
            writer.note("harness", "run", RunNote(topics={TOPIC: settings}))
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(work(Recorder(writer, client, f"w{number}"), number, stop))
                async with asyncio.TaskGroup() as producers:
                    for number in range(4):
                        one = Recorder(writer, client, f"p{number}")
                        producers.create_task(produce(one, 10 + number))
                observer = Recorder(writer, client, "o")
                while True:
                    counts = (await observer.stats(TOPIC)).counts
                    if not counts.scheduled + counts.ready + counts.leased:
                        break
                    await asyncio.sleep(0.05)
                stop.set()
        async with redis.asyncio.Redis.from_url(server.store.url) as store:
            trimmed = await write_journal(run.journal, store, {TOPIC: SHARDS})
        run.write_final(await collect_final(client, [TOPIC], drained=True, trimmed=trimmed))
    run.write_problems([])


async def test_a_run_of_the_real_queue_keeps_every_promise(
    server: RunningServer, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    await run_once(server, run)
    results = judge(run, BOUNDS).results
    assert results.verdict == "VALID", explanation(results)
    judged = {promise.id: promise.judged for promise in results.promises}
    assert all(judged.values()), judged

    # The same run without one ack: the task ended, and no client had ended it.
    lines = run.history.read_bytes().splitlines(keepends=True)
    ops = read_history(run.history).ops
    tokens = [op.request.token for op in ops if op.op == "ack"]
    alone = next(
        op for op in ops if op.op == "ack" and op.ok and tokens.count(op.request.token) == 1
        and lines[op.index].count(b'"ack"')
    )  # fmt: skip
    run.history.write_bytes(
        b"".join(line for at, line in enumerate(lines) if at not in {alone.index, alone.end})
    )
    results = judge(run, BOUNDS).results
    assert "G2" in broken(results), explanation(results)
