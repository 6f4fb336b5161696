"""A client whose clock is wrong finds that out, and dates its requests by the store's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from ddq import errors
from ddq.client import Client, LeaseRef, NewTask
from ddq.client.storetime import StoreTime
from ddq.server.status import to_status
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.fake import FakeServer, FakeTiming

LEASE = LeaseRef("mail", "a", b"0123456789abcdef")


def stamp(ms: int) -> Timestamp:
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made


def expired(store_ms: int) -> status_pb2.Status:
    error = errors.RequestExpired("too late", metadata={"store_time_ms": str(store_ms)})
    return to_status(error)


class Store:
    """Judges not_after as the store does, by a clock that is off from the client's."""

    def __init__(self, timing: FakeTiming, ahead_s: float) -> None:
        self._timing = timing
        self._ahead_ms = round(ahead_s * 1_000)

    @property
    def now_ms(self) -> int:
        return self._timing.wall_ms() + self._ahead_ms

    def refusal(self, request: Any) -> status_pb2.Status | None:
        not_after_ms = request.not_after.ToMilliseconds()
        if not_after_ms < self.now_ms:
            return expired(self.now_ms)
        if not_after_ms > self.now_ms + 601_000:
            error = errors.InvalidArgument(
                "not_after: is ahead", metadata={"server_time_ms": str(self.now_ms)}
            )
            return to_status(error)
        return None

    @property
    def receipt(self) -> task_pb2.Receipt:
        return task_pb2.Receipt(store_time=stamp(self.now_ms))


def serve(server: FakeServer, store: Store) -> None:
    """Enqueue, alone and in batches, and Ack."""

    def judged(reply: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
        async def handle(request: Any) -> Any:
            return store.refusal(request) or reply(request)

        return handle

    def batch(request: Any) -> Any:
        refused = store.refusal(request)
        # Each item has its own status, as on the server.
        if refused is not None and refused.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
            return refused
        results = []
        for item in request.items:
            if refused is not None:
                results.append(pb.BatchEnqueueResult(status=refused))
            else:
                result = pb.EnqueueResult(
                    id=item.task.id, created=True, state=task_pb2.TASK_STATE_READY
                )
                results.append(pb.BatchEnqueueResult(result=result, receipt=store.receipt))
        return pb.BatchEnqueueResponse(results=results)

    async def batched(request: Any) -> Any:
        return batch(request)

    server.script["Enqueue"] = [
        judged(
            lambda request: pb.EnqueueResponse(
                result=pb.EnqueueResult(
                    id=request.task.id, created=True, state=task_pb2.TASK_STATE_READY
                ),
                receipt=store.receipt,
            )
        )
    ]
    server.script["Ack"] = [
        judged(lambda _: pb.AckResponse(result=pb.AckResult(revision=3), receipt=store.receipt))
    ]
    server.script["BatchEnqueue"] = [batched]


@pytest.mark.parametrize("ahead_s", [30.0, -30.0, 3_600.0, -3_600.0, 0.0, 0.9])
@pytest.mark.parametrize("in_batches", [False, True])
async def test_requests_succeed_whatever_the_clock_says(
    ahead_s: float,
    in_batches: bool,
    client: Client,
    server: FakeServer,
    timing: FakeTiming,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(timing, ahead_s)
    serve(server, store)
    with caplog.at_level(logging.WARNING):
        if in_batches:
            tasks = [NewTask(id=str(number)) for number in range(3)]
            results = await client.enqueue_batch("mail", tasks)
            assert [result.unwrap().created for result in results] == [True] * 3
        else:
            assert (await client.enqueue("mail", b"x")).created
        assert (await client.ack(LEASE)).revision == 3
    assert timing.sleeps_s == []
    request = server.requests["Ack"][-1]
    # 10 s from now by the store's clock, but for the second by which a clock may be off.
    assert abs(request.not_after.ToMilliseconds() - store.now_ms - 10_000) <= 1_000
    said = [record.message for record in caplog.records]
    if abs(ahead_s) <= 1.0:
        assert said == []
    else:
        how_much = {30.0: "30s behind", -30.0: "30s ahead of", 3_600.0: "1h behind"}
        assert len(said) == 1
        expected = how_much.get(ahead_s, "1h ahead of")
        assert said[0].startswith(f"this machine's clock is {expected} the store's")


async def test_a_request_that_may_have_acted_keeps_its_date(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    """The store may have forgotten what the first attempt did by the later date."""
    store_ms = timing.wall_ms() + 30_000
    server.script["Enqueue"] = [grpc.StatusCode.UNAVAILABLE, expired(store_ms)]
    with pytest.raises(errors.OutcomeUnknown):
        await client.enqueue("mail", b"x")
    first, second = server.requests["Enqueue"]
    assert first == second


async def test_a_request_that_is_really_late_is_not_repeated(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["Enqueue"] = [expired(timing.wall_ms())]
    with pytest.raises(errors.RequestExpired):
        await client.enqueue("mail", b"x")
    assert len(server.requests["Enqueue"]) == 1


def test_a_reply_that_came_late_says_nothing_against_the_clock() -> None:
    timing = FakeTiming()
    times = StoreTime(timing)
    asked = times.asked()
    store_ms = timing.wall_ms()
    timing.now_s += 40.0
    assert not times.observe(store_ms, asked)
    assert times.now_ms() == timing.wall_ms()


def test_a_clock_that_is_set_right_is_trusted_again() -> None:
    class Stepped(FakeTiming):
        step_ms = -30_000

        def wall_ms(self) -> int:
            return super().wall_ms() + self.step_ms

    timing = Stepped()
    times = StoreTime(timing)
    true_ms = timing.wall_ms() + 30_000
    assert times.observe(true_ms, times.asked())
    assert times.now_ms() == true_ms
    asked = times.asked()
    # Set right while a request is under way: the monotonic clock says how long that took.
    timing.step_ms = 0
    timing.now_s += 0.1
    assert times.observe(true_ms + 100, asked)
    assert times.now_ms() == timing.wall_ms() == true_ms + 100
