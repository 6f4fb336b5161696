"""The demo from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

from ddq.client import Client, TaskState
from ddq.demo.plan import TOPIC, PlannedTask, make_plan
from ddq.demo.screen import DemoScreen
from ddq.demo.summary import Outcome, check, show
from ddq.demo.worker_pool import Member, WorkerPool
from ddq.errors import DdqError, FailedPrecondition
from ddq.server import ServerInfo, ServerOptions, run_server

TASKS = 400
PRODUCERS = 3
WORKERS = 3
PRODUCE_INTERVAL_S = 0.2
PRODUCE_BATCH = 6
KILL_AFTER_S = 6.0
REFRESH_S = 0.2
TIMEOUT_S = 90.0


class DemoError(Exception):
    """The demo could not be carried through; the message says why."""


async def run_demo(*, tasks: int = TASKS, seed: int = 1) -> bool:
    """Plays the demo and prints the bill. Returns whether it adds up.

    Raises:
        DemoError, StartupError, DdqError
    """
    plan = make_plan(tasks, seed)
    cancelled: set[str] = set()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ddq-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        screen = DemoScreen()
        screen.tell(f"starting a server, its store in {folder}, and {WORKERS} worker processes")
        address = await stack.enter_async_context(_server(folder))
        client = await stack.enter_async_context(Client(address))
        pool = WorkerPool(address)
        stack.push_async_callback(pool.end)
        for _ in range(WORKERS):
            await pool.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                with screen:
                    await _play(client, plan, pool, screen, cancelled)
                await pool.stop()
                outcome = Outcome(
                    (await client.stats(TOPIC)).counts,
                    cancelled,
                    await _ids(client, TaskState.SUCCEEDED),
                    await _ids(client, TaskState.DEAD),
                )
        except TimeoutError:
            raise DemoError(f"the demo did not finish within {TIMEOUT_S:.0f} s") from None
    checks = check(plan, outcome, pool)
    show(checks)
    return all(line.holds for line in checks)


@contextlib.asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[str]:
    """A server with a store of its own, for the length of the block."""
    stop = asyncio.Event()
    ready: asyncio.Future[ServerInfo] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        run_server(
            ServerOptions("127.0.0.1:0", f"embedded:{folder / 'store'}"),
            stop=stop,
            on_ready=ready.set_result,
        ),
        name="ddq demo server",
    )
    try:
        first: set[asyncio.Future[Any]] = {server, ready}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await server
            raise DemoError("the server ended before it was ready")
        yield ready.result().address
    finally:
        stop.set()
        await asyncio.wait({server})
    await server


async def _play(
    client: Client,
    plan: Sequence[PlannedTask],
    pool: WorkerPool,
    screen: DemoScreen,
    cancelled: set[str],
) -> None:
    """Produces, cancels, kills a worker, and returns when every task has ended."""
    first = plan[0]
    # So that the topic is there when it is first looked at.
    await client.enqueue_batch(TOPIC, [first.new_task()])
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(client, pool, screen, len(plan)))
        group.create_task(_accident(pool, screen))
        async with asyncio.TaskGroup() as producers:
            for number in range(PRODUCERS):
                share = plan[1 + number :: PRODUCERS]
                producers.create_task(_produce(client, share, screen, cancelled))
        screen.tell(f"all {len(plan)} tasks are enqueued, {len(cancelled)} of them cancelled again")
        await watching


async def _produce(
    client: Client, tasks: Sequence[PlannedTask], screen: DemoScreen, cancelled: set[str]
) -> None:
    """Enqueues a share of the tasks, a few at a time, and cancels those that the plan says."""
    for batch in _slices(tasks, PRODUCE_BATCH):
        for result in await client.enqueue_batch(TOPIC, [task.new_task() for task in batch]):
            result.unwrap()
        await asyncio.sleep(PRODUCE_INTERVAL_S)
        for task in batch:
            if task.cancelled:
                try:
                    await client.cancel(TOPIC, task.id)
                except FailedPrecondition as error:
                    screen.tell(f"too late to cancel: {error}")
                else:
                    cancelled.add(task.id)


async def _accident(pool: WorkerPool, screen: DemoScreen) -> None:
    """Kills a worker in the middle of its work, and hires another."""
    await asyncio.sleep(KILL_AFTER_S)
    while not pool.orphans:
        target = await _busy(pool)
        # Its last task may have ended while the signal was on its way: then another has to go.
        held = await pool.kill(target)
        screen.tell(
            f"{target.name} was killed (SIGKILL) while it held {len(held)} tasks; "
            "their leases will expire"
        )
        member = await pool.start()
        screen.tell(f"{member.name} takes its place")


async def _busy(pool: WorkerPool) -> Member:
    """The first worker that is found at work."""
    while True:
        for member in pool.members:
            if member.holding:
                return member
        await asyncio.sleep(REFRESH_S)


async def _watch(client: Client, pool: WorkerPool, screen: DemoScreen, total: int) -> None:
    """Shows the figures until every task has ended."""
    while True:
        with contextlib.suppress(DdqError):
            counts = (await client.stats(TOPIC)).counts
            screen.show(counts, pool)
            if counts.enqueued == total and not counts.scheduled + counts.ready + counts.leased:
                return
        await asyncio.sleep(REFRESH_S)


async def _ids(client: Client, state: TaskState) -> set[str]:
    return {task.id async for task in client.list_tasks(TOPIC, state, page_size=1_000)}


def _slices(tasks: Sequence[PlannedTask], size: int) -> Iterable[Sequence[PlannedTask]]:
    return (tasks[at : at + size] for at in range(0, len(tasks), size))
