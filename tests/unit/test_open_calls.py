"""Calls that are ended by the server itself, and a wait that is never interrupted."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from ddq.server.draining import uninterrupted
from ddq.server.open_calls import OpenCalls


class Context:
    """The part of a ServicerContext that ends a call early.

    Attributes:
        aborted: the status codes that the call was ended with.
    """

    def __init__(self, *, answered: bool = False) -> None:
        self.aborted: list[grpc.StatusCode] = []
        self._answered = answered

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert details == "the server is stopping"
        if self._answered:
            raise grpc.aio.UsageError
        self.aborted.append(code)


async def endless() -> None:
    await asyncio.Event().wait()


async def step() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_open_calls_are_ended_and_so_are_those_that_arrive_later() -> None:
    calls, before, after = OpenCalls(), Context(), Context()
    running = asyncio.create_task(calls.run(before, endless))
    await step()
    calls.end()
    await running
    assert not running.cancelling(), "the call is ended, and its task is no longer cancelled"
    await calls.run(after, endless)
    assert before.aborted == after.aborted == [grpc.StatusCode.UNAVAILABLE]


async def test_a_call_that_has_returned_is_left_alone() -> None:
    calls, context = OpenCalls(), Context()

    async def reply() -> int:
        return 1

    assert await calls.run(context, reply) == 1
    calls.end()
    await step()
    assert not context.aborted


async def test_a_call_that_its_client_cancelled_is_not_answered() -> None:
    calls, context = OpenCalls(), Context()
    running = asyncio.create_task(calls.run(context, endless))
    await step()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not context.aborted


async def test_a_call_that_is_being_answered_with_an_error_keeps_that_answer() -> None:
    calls, context = OpenCalls(), Context(answered=True)
    running = asyncio.create_task(calls.run(context, endless))
    await step()
    calls.end()
    await running
    assert not context.aborted


async def test_work_goes_on_when_the_wait_for_it_is_cancelled_twice() -> None:
    may_end = asyncio.Event()

    async def work() -> int:
        await may_end.wait()
        return 1

    inner = asyncio.create_task(work())
    waiting = asyncio.create_task(uninterrupted(inner))
    for _ in range(2):
        await step()
        waiting.cancel()
    await step()
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inner.result() == 1


async def test_an_error_of_uninterrupted_work_is_raised_or_is_the_cause_of_the_cancellation() -> (
    None
):
    async def fail() -> None:
        await step()
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await uninterrupted(fail())
    waiting = asyncio.create_task(uninterrupted(fail()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    assert isinstance(caught.value.__cause__, ValueError)
