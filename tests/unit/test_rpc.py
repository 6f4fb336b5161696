"""How long a request may take, and until when it may act."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from ddq.config import Settings
from ddq.durations import moment_text
from ddq.errors import InvalidArgument
from ddq.server.rpc import SETTLE_S, CallFactory, RunningCalls, servicer
from ddq.store.runner import Call
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.stateful.virtual import run_virtually

NOW_MS = 1_700_000_000_000
SETTINGS = Settings(
    max_request_age_ms=10_000, default_request_timeout_ms=3_000, max_clock_skew_ms=1_000
)


class Standing:
    """A clock that stands."""

    def now_ms(self) -> int:
        """Always the same."""
        return NOW_MS


def factory() -> CallFactory:
    return CallFactory(SETTINGS, Standing())


@pytest.mark.parametrize(
    ("remaining_s", "takes_s", "acts_until_ms"),
    [(2.0, 2.0, 2_000), (3_600.0, 3_600.0, 10_000), (None, 3.0, 3_000), (0.0004, 0.0004, 0)],
)
async def test_a_request_acts_as_long_as_its_caller_waits_and_no_longer_than_is_remembered(
    remaining_s: float | None, takes_s: float, acts_until_ms: int
) -> None:
    """Beyond max_request_age its request record may be gone, and a repeat would act again."""
    began_s = asyncio.get_running_loop().time()
    call = factory().make(pb.EnqueueRequest(), remaining_s)
    assert call.deadline_s == pytest.approx(began_s + takes_s, abs=0.5)
    assert call.not_after_ms == NOW_MS + acts_until_ms


@pytest.mark.parametrize(
    ("remaining_s", "deadline_s"), [(12.0, 11.9), (1.0, 0.9), (0.2, 0.18), (None, 3.0)]
)
def test_the_store_has_to_answer_before_the_callers_deadline(
    remaining_s: float | None, deadline_s: float
) -> None:
    """An error that is raised at the deadline reaches no caller."""

    async def make() -> float:
        return factory().make(pb.EnqueueRequest(), remaining_s).deadline_s

    assert run_virtually(make()) == pytest.approx(deadline_s)


@pytest.mark.parametrize("ahead_ms", [-5_000, 1, 10_000, 11_000])
async def test_a_not_after_that_is_given_is_taken(ahead_ms: int) -> None:
    request = pb.EnqueueRequest()
    request.not_after.FromMilliseconds(NOW_MS + ahead_ms)
    assert factory().make(request, 2.0).not_after_ms == NOW_MS + ahead_ms


async def test_a_not_after_behind_what_is_remembered_is_refused() -> None:
    """The skew between the clocks is allowed for, and nothing more."""
    request = pb.EnqueueRequest()
    request.not_after.FromMilliseconds(NOW_MS + 11_001)
    # It may be the server's clock that is wrong, so both are named.
    with pytest.raises(InvalidArgument) as caught:
        factory().make(request, 2.0)
    assert f"ahead of this server's clock, which says {moment_text(NOW_MS)}:" in str(caught.value)


async def test_the_first_moment_of_all_is_a_bound_too() -> None:
    request = pb.EnqueueRequest()
    request.not_after.FromMilliseconds(0)
    assert factory().make(request, 2.0).not_after_ms == 1


# The end of a server -------------------------------------------------------------------------


class Queue:
    """A service of which every call but one fails."""

    def __getattr__(self, name: str) -> object:
        async def refuse(*_: object) -> None:
            raise InvalidArgument("no")

        return refuse

    async def get_task(self, request: pb.GetTaskRequest, _: Call) -> pb.GetTaskResponse:
        return pb.GetTaskResponse(task=task_pb2.Task(id=request.id))


class Context:
    """A call without a deadline."""

    ended = False

    def time_remaining(self) -> None:
        return None

    async def abort_with_status(self, _: object) -> None:
        self.ended = True
        # As gRPC does.
        raise grpc.aio.AbortError


async def test_replies_and_errors_are_kept_back_until_they_are_released() -> None:
    running, context = RunningCalls(), Context()
    base = queue_grpc.DelayQueueServiceServicer
    adapted = servicer(Queue(), base, factory(), running=running)
    assert (await adapted.GetTask(pb.GetTaskRequest(id="a"), context)).task.id == "a"
    running.hold()
    replied = asyncio.ensure_future(adapted.GetTask(pb.GetTaskRequest(id="a"), context))
    failed = asyncio.ensure_future(adapted.Ack(pb.AckRequest(), context))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not replied.done()
    assert not context.ended
    running.release()
    assert (await replied).task.id == "a"
    with pytest.raises(grpc.aio.AbortError):
        await failed
    assert context.ended


@pytest.mark.parametrize("count", [0, 1, 5, 1_000])
def test_calls_have_settled_when_none_begins_for_a_while(count: int) -> None:
    """At a rate without a pause the server stops all the same."""
    interval_s, timeout_s = 0.02, 0.25
    last_s = interval_s * count

    async def settle() -> float:
        running = RunningCalls()
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async def arrive() -> None:
            for _ in range(count):
                await asyncio.sleep(interval_s)
                with running:
                    pass

        arriving = asyncio.create_task(arrive())
        await running.settle(timeout_s)
        arriving.cancel()
        return loop.time() - began_s

    took_s = run_virtually(settle())
    if last_s >= timeout_s:
        assert took_s == pytest.approx(timeout_s)
    else:
        assert last_s + SETTLE_S - 0.001 <= took_s <= last_s + 2 * SETTLE_S + 0.001
