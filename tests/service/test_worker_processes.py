"""Worker processes against a server: signals, deployments, threads, a revoked lease."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import datetime, timedelta

import pytest

from ddq.client import Client, RetryPolicy, TaskState, TopicSettings
from ddq.worker import Job, Verdict, Worker
from tests.support.program import line_of, program, rest_of
from tests.support.server import RunningServer

WORKER = """
import asyncio, sys, time
from datetime import timedelta
from ddq.client import Client
from ddq.worker import Worker

{handler}

async def main():
    async with Client(sys.argv[1]) as client:
        await Worker(client, "mail", handler, {options}).run()
    print("run has returned")

asyncio.run(main())
print("the program ends")
"""

ENDS = "run has returned\nthe program ends\n"


def worker(handler: str, **options: str) -> str:
    return WORKER.format(
        handler=handler, options=", ".join(f"{name}={value}" for name, value in options.items())
    )


SLEEPS = """
async def handler(job):
    print("started")
    await asyncio.Event().wait()
"""

THREAD = """
def handler(job):
    print("started")
    time.sleep(600)
"""

BLOCKS = """
async def handler(job):
    print("started")
    time.sleep(600)
"""

STOPPABLE = """
import asyncio, sys
from datetime import timedelta
from ddq.client import Client
from ddq.worker import Worker

async def main():
    async with Client(sys.argv[1]) as client:
        async def handler(job):
            print("started")
            while not worker.stopping:
                await asyncio.sleep(0.01)
            print("finishes", job.id)
        worker = Worker(client, "mail", handler)
        await worker.run()
    print("run has returned")

asyncio.run(main())
print("the program ends")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_handler_finish(
    number: signal.Signals, server: RunningServer
) -> None:
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x", retry_policy=RetryPolicy(max_attempts=1))
        async with program(STOPPABLE, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(number)
            assert await rest_of(process) == f"finishes {task.id}\n{ENDS}"
        assert (await client.get_task("mail", task.id)).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("handler", [SLEEPS, THREAD])
async def test_a_deployment_costs_no_attempt(handler: str, server: RunningServer) -> None:
    """With max_attempts = 1 the task would be dead, though it never failed."""
    text = worker(handler, grace="timedelta(0)", lease="timedelta(seconds=60)")
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x", retry_policy=RetryPolicy(max_attempts=1))
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            output = await rest_of(process)
            # Threads do not keep it alive, nor does what they still do.
            assert output.endswith(ENDS)
        found = await client.get_task("mail", task.id)
        assert (found.state, found.attempt) == (TaskState.READY, 0)
        # And it is there for the next worker at once, not when its lease is over.
        (lease,) = await client.retrieve("mail", wait=timedelta(seconds=20))
        assert (lease.id, lease.attempt) == (task.id, 1)


async def test_a_crash_still_counts(server: RunningServer) -> None:
    text = worker(THREAD, lease="timedelta(milliseconds=300)")
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x", retry_policy=RetryPolicy(max_attempts=1))
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.kill()
            await process.wait()
        async with asyncio.timeout(30):
            # The scheduler that takes the lease back tells no client.
            while (await client.get_task("mail", task.id)).state is not TaskState.DEAD:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_the_second_signal_ends_the_grace_time(server: RunningServer) -> None:
    text = worker(SLEEPS, grace="timedelta(hours=1)", lease="timedelta(seconds=60)")
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x")
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            # Signals of one kind that come together are one.
            process.send_signal(signal.SIGINT)
            assert (await rest_of(process)).endswith(ENDS)
        assert (await client.get_task("mail", task.id)).state is TaskState.READY


async def test_a_signal_is_noticed_while_a_handler_blocks_the_loop(server: RunningServer) -> None:
    """The blocked program cannot end, but its task is handed back and no other one is taken."""
    text = worker(BLOCKS, grace="timedelta(0)", lease="timedelta(seconds=60)")
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x")
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            (lease,) = await client.retrieve("mail", wait=timedelta(seconds=30))
            assert (lease.id, lease.attempt) == (task.id, 1)
            assert process.returncode is None


async def test_signals_can_be_left_to_the_program(server: RunningServer) -> None:
    text = worker(SLEEPS, handle_signals="False")
    async with Client(server.address) as client:
        await client.enqueue("mail", b"x")
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            await process.wait()
            assert process.returncode == -signal.SIGTERM


async def test_a_handler_of_the_program_is_left_alone(server: RunningServer) -> None:
    own = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
    async with Client(server.address) as client:
        await client.enqueue("mail", b"x")
        async with program(own + worker(SLEEPS), server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            await process.wait()
            assert process.returncode == 7


async def test_two_workers_of_a_program_both_stop(server: RunningServer) -> None:
    text = """
import asyncio, signal, sys
from ddq.client import Client
from ddq.worker import Worker

async def main():
    async with Client(sys.argv[1]) as client:
        async def handler(job):
            print("started")
            while not (first.stopping and second.stopping):
                await asyncio.sleep(0.01)
        first, second = Worker(client, "mail", handler), Worker(client, "post", handler)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.run())
            group.create_task(second.run())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    print("run has returned")

asyncio.run(main())
print("the program ends")
"""
    async with Client(server.address) as client:
        await client.enqueue("mail", b"x")
        async with program(text, server.address) as process:
            assert await line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            assert await rest_of(process) == ENDS


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_revoked_lease_is_noticed_at_the_next_heartbeat(
    is_async: bool, server: RunningServer
) -> None:
    """Within a third of the lease; the bound here is one lease, for a machine that is busy."""
    lease = timedelta(seconds=3)
    loop = asyncio.get_running_loop()
    started, noticed_s = asyncio.Event(), []

    def plain(job: Job) -> None:
        loop.call_soon_threadsafe(started.set)
        assert job.wait_until_lost(60)
        noticed_s.append(time.monotonic())

    async def handler(job: Job) -> None:
        started.set()
        try:
            await job.lost.wait()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            noticed_s.append(time.monotonic())
            raise

    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x")
        worker = Worker(client, "mail", handler if is_async else plain, lease=lease, max_jobs=1)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            await started.wait()
            await client.cancel("mail", task.id, revoke_lease=True)
            revoked_s = time.monotonic()
    assert noticed_s[0] - revoked_s < lease.total_seconds()
    assert worker.stats.verdicts[Verdict.LOST] == 1


BLOCKS_FOR_A_WHILE = """
async def handler(job):
    print("late" if time.monotonic() >= job.deadline_s else "in time", job.id)
    time.sleep(0.9)
"""


async def test_handlers_that_block_the_loop_finish_each_task_once(server: RunningServer) -> None:
    """The case of the report: a lease of 1 s, and ten handlers that block for 0.9 s each."""
    text = worker(
        BLOCKS_FOR_A_WHILE,
        lease="timedelta(seconds=1)",
        stop_when_idle="timedelta(seconds=2)",
        on_settled="lambda job, verdict: verdict.value == 'acked' or print(verdict.value)",
    )
    async with Client(server.address) as client:
        for number in range(10):
            await client.enqueue("mail", b"x", task_id=str(number))
        async with program(text, server.address) as process:
            output = await rest_of(process)
        stats = await client.stats("mail")
    runs = sorted(line for line in output.splitlines() if line.startswith(("in time", "late")))
    assert runs == [f"in time {number}" for number in range(10)], output
    assert stats.counts.succeeded == 10
    assert "lost" not in output


async def test_a_worker_keeps_to_the_max_run_of_the_topic(server: RunningServer) -> None:
    async def handler(_: Job) -> None:
        await asyncio.Event().wait()

    async with Client(server.address) as client:
        settings = TopicSettings(max_run=timedelta(milliseconds=200))
        await client.create_topic("mail", settings=settings)
        task = await client.enqueue("mail", b"x", retry_policy=RetryPolicy(max_attempts=1))
        worker = Worker(client, "mail", handler, max_jobs=1)
        async with asyncio.timeout(60):
            await worker.run()
        found = await client.get_task("mail", task.id)
        assert found.state is TaskState.DEAD
        assert found.last_error == "the handler ran longer than max_run (200ms)"
        # What a topic is changed to holds for the next lease.
        await client.update_topic("mail", TopicSettings(max_run=timedelta(0)))
        await client.redrive("mail", [task.id])
        (lease,) = await client.retrieve("mail", wait=timedelta(seconds=20))
        assert lease.max_run is None
        assert (await client.get_topic("mail")).settings.max_run == timedelta(0)


FORKS = """
import os
{kind} handler(job):
    child = os.fork()
    if child == 0:
        print("in the child", flush=True)
        {leave}
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("the child's status:", status, flush=True)
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("leave", "status"),
    [("sys.exit(4)", 4), ("sys.exit()", 0), ("return", 0), ("raise KeyError('x')", 1)],
)
async def test_a_child_that_a_handler_forks_ends_where_it_leaves_the_handler(
    leave: str, status: int, kind: str, server: RunningServer
) -> None:
    """It stayed, as a copy of the worker without its threads, and the handler waited for it."""
    text = worker(FORKS.format(kind=kind, leave=leave), max_jobs="1")
    # gRPC notes each fork on stderr, and Python 3.12 and later warn of it.
    quiet = {"GRPC_VERBOSITY": "NONE", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x")
        async with program(text, server.address, **quiet) as process:
            output = await rest_of(process)
        assert output.startswith("in the child\n")
        assert output.endswith(f"the child's status: {status}\n{ENDS}"), output
        assert (await client.get_task("mail", task.id)).state is TaskState.SUCCEEDED


async def test_a_handler_that_raises_is_retried_after_its_backoff_until_the_task_is_dead(
    server: RunningServer,
) -> None:
    attempts: list[tuple[int, str, datetime | None]] = []

    async def handler(job: Job) -> None:
        attempts.append((job.attempt, job.last_error, job.due_time))
        raise ValueError(f"attempt {job.attempt}")

    backoff = timedelta(milliseconds=300)
    policy = RetryPolicy(max_attempts=2, initial_backoff=backoff, jitter=0.0)
    async with Client(server.address) as client:
        task = await client.enqueue("mail", b"x", retry_policy=policy)
        worker = Worker(client, "mail", handler, max_jobs=2)
        async with asyncio.timeout(60):
            await worker.run()
        found = await client.get_task("mail", task.id)
    assert (found.state, found.last_error) == (TaskState.DEAD, "ValueError: attempt 2")
    assert [(number, error) for number, error, _ in attempts] == [
        (1, ""),
        (2, "ValueError: attempt 1"),
    ]
    (_, _, first), (_, _, second) = attempts
    assert first is not None
    assert second is not None
    assert second - first >= backoff
