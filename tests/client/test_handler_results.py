"""What a handler raises is the failure of its task, whatever it is."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ddq import errors
from ddq.client import LeaseRef, Nacked, convert
from ddq.worker import Job, Retry, Verdict
from tests.client.queue import FakeQueue, lease
from tests.client.test_worker import counted, run


class Odd(BaseException):
    """Neither an Exception nor one of those that the interpreter knows."""


class UnreadableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class ExitingError(Exception):
    """Ends the process that asks for its text."""

    def __str__(self) -> str:
        raise SystemExit(9)


def stop_iteration(_: Job) -> None:
    next(iter([]))


def exits(_: Job) -> None:
    sys.exit(3)


def raises(error: BaseException) -> Callable[[Job], None]:
    def handler(_: Job) -> None:
        raise error

    return handler


PLAIN: dict[str, tuple[Callable[[Job], Any], str]] = {
    "StopIteration": (stop_iteration, "StopIteration"),
    "SystemExit": (exits, "SystemExit: 3"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
    "GeneratorExit": (raises(GeneratorExit()), "GeneratorExit"),
    "CancelledError": (
        raises(asyncio.CancelledError()),
        "CancelledError: raised within the handler; the worker had not cancelled it",
    ),
    "a reason": (raises(asyncio.CancelledError("by me")), "CancelledError: by me"),
    "StopAsyncIteration": (raises(StopAsyncIteration()), "StopAsyncIteration"),
    "BaseException": (raises(Odd("strange")), "Odd: strange"),
    "no text": (
        raises(UnreadableError()),
        "UnreadableError, whose text cannot be read: ValueError",
    ),
    "exit in text": (
        raises(ExitingError()),
        "ExitingError, whose text cannot be read: SystemExit",
    ),
    "group": (
        raises(BaseExceptionGroup("both", [SystemExit(1), ValueError("x")])),
        "BaseExceptionGroup: both (2 sub-exceptions)",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_a_plain_function(name: str) -> None:
    handler, text = PLAIN[name]
    queue = FakeQueue(lease("a"))
    made = await run(queue, handler)
    (verdict,) = queue.nacks
    # The policy's backoff, not at once.
    assert (verdict["error"], verdict["delay"]) == (text, None)
    assert counted(made) == {Verdict.NACKED: 1}


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith("Stop")])
async def test_an_async_handler(name: str) -> None:
    handler, text = PLAIN[name]
    queue = FakeQueue(lease("a"), lease("neighbour"))

    async def with_it(job: Job) -> None:
        if job.id == "a":
            handler(job)

    made = await run(queue, with_it)
    (verdict,) = queue.nacks
    assert (verdict["error"], verdict["delay"]) == (text, None)
    assert counted(made) == {Verdict.NACKED: 1, Verdict.ACKED: 1}


async def interrupted_beside_a_neighbour(**options: Any) -> None:
    queue = FakeQueue(lease("a"), lease("neighbour"))

    async def handler(job: Job) -> None:
        if job.id == "a":
            raise KeyboardInterrupt

    made = await run(queue, handler, **options)
    assert counted(made) == {Verdict.NACKED: 1, Verdict.ACKED: 1}


@pytest.mark.parametrize("handle_signals", [True, False])
async def test_a_keyboard_interrupt_where_ctrl_c_is_ignored(handle_signals: bool) -> None:
    """A shell ignores SIGINT for background processes of a script: Ctrl-C does not reach them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        await interrupted_beside_a_neighbour(handle_signals=handle_signals)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handle_signals", [True, False])
async def test_a_keyboard_interrupt_outside_of_the_main_thread(handle_signals: bool) -> None:
    """Python raises none of its own there."""
    work = interrupted_beside_a_neighbour(handle_signals=handle_signals)
    await asyncio.to_thread(asyncio.run, work)


async def test_a_stop_iteration_of_an_async_handler() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(job: Job) -> None:
        stop_iteration(job)

    await run(queue, handler)
    (verdict,) = queue.nacks
    assert verdict["error"] == "RuntimeError: coroutine raised StopIteration"


async def test_the_cancellation_of_a_subtask_is_a_failure_of_the_handler() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(_: Job) -> None:
        part = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        part.cancel()
        await part

    made = await run(queue, handler)
    (verdict,) = queue.nacks
    assert verdict["error"].startswith("CancelledError: raised within the handler")
    assert verdict["delay"] is None
    assert counted(made) == {Verdict.NACKED: 1}


async def test_a_handler_that_cancels_itself_has_failed() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(_: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    made = await run(queue, handler)
    assert counted(made) == {Verdict.NACKED: 1}


class StrictQueue(FakeQueue):
    """Refuses delays as the client and the server do."""

    async def nack(self, ref: LeaseRef, **verdict: Any) -> Nacked:
        convert.verdict(verdict["error"], verdict["delay"], dead_letter=verdict["dead_letter"])
        if verdict["delay"] is not None and verdict["delay"] < timedelta(0):
            raise errors.InvalidArgument("verdict.delay: is negative")
        return await super().nack(ref, **verdict)


@pytest.mark.parametrize("delay", [timedelta(seconds=-1), 5, "5s"])
async def test_a_delay_that_cannot_be_fails_its_own_task_only(delay: Any) -> None:
    queue = StrictQueue(lease("a"), lease("neighbour"))

    async def handler(job: Job) -> None:
        if job.id == "a":
            raise Retry("busy", delay=delay)

    made = await run(queue, handler)
    (verdict,) = queue.nacks
    assert verdict["error"].startswith("busy; what the handler asked for was refused: ")
    assert verdict["delay"] is None
    assert counted(made) == {Verdict.NACKED: 1, Verdict.ACKED: 1}


def test_a_program_that_ends_hands_its_tasks_back() -> None:
    """asyncio.run() cancels run() and the handlers in the same moment."""
    said = []

    async def main() -> None:
        queue = FakeQueue(lease("a"))
        started = asyncio.Event()

        async def handler(_: Job) -> None:
            started.set()
            await asyncio.Event().wait()

        said.append(queue.said)
        background = asyncio.create_task(run(queue, handler, stop_when_idle=None))
        await started.wait()
        assert not background.done()

    asyncio.run(main())
    assert said == [[("release", "a")]]
