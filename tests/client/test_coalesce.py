"""Attempts of concurrent calls share requests, and each call keeps its own deadline and outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from google.rpc import status_pb2

from ddq import errors
from ddq.client import Client, LeaseRef, SyncClient, coalesce
from ddq.client.batch import Item
from ddq.client.coalesce import IN_FLIGHT_MAX_COUNT, SHARE_MIN_COUNT, Coalescer, Form
from ddq.client.status import AttemptFailedError, Failure, failure_of_status
from ddq.config import LIMITS
from ddq.task import OnConflict
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.fake import FakeServer, refusal

OK = status_pb2.Status()


def answer(task_id: str, status: status_pb2.Status = OK) -> pb.BatchAckResult:
    return pb.BatchAckResult(status=status, result=pb.AckResult(revision=int(task_id)))


class Wire:
    """What a coalescer sends; each request is answered when the test says so.

    Attributes:
        sent: the ids of each request, in the order of the sends.
        dates_ms: the not_after of each request.
        request_ids: of each request; None for none.
        answers: what becomes of an item; OK if it is not named.
    """

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.dates_ms: list[int] = []
        self.request_ids: list[str | None] = []
        self.remaining_s: list[float] = []
        self.answers: dict[str, status_pb2.Status] = {}
        self.failures: list[Failure | None] = []
        self._open = asyncio.Event()
        self._open.set()
        self.idle_count = 0
        numbers = itertools.count(1)
        form: Form[Any, Any] = Form(self._alone, self._together, lambda: f"r{next(numbers)}")
        self.coalescer: Coalescer[Any, Any] = Coalescer(form, self._idle)

    def hold(self) -> None:
        """Requests are not answered until release."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def _idle(self) -> None:
        self.idle_count += 1

    async def _note(self, ids: list[str], not_after_ms: int, remaining_s: float) -> None:
        self.sent.append(ids)
        self.dates_ms.append(not_after_ms)
        self.remaining_s.append(remaining_s)
        failure = self.failures.pop(0) if self.failures else None
        await self._open.wait()
        if failure is not None:
            raise AttemptFailedError(failure)

    async def _alone(self, item: Item[Any], not_after_ms: int, remaining_s: float) -> Any:
        self.request_ids.append(item.request_id)
        await self._note([item.id], not_after_ms, remaining_s)
        status = self.answers.get(item.id, OK)
        if status.code:
            raise AttemptFailedError(failure_of_status(status))
        return pb.AckResponse(result=pb.AckResult(revision=int(item.id)))

    async def _together(
        self, items: Sequence[Any], not_after_ms: int, remaining_s: float, request_id: str | None
    ) -> list[pb.BatchAckResult]:
        ids = [item.id for item in items]
        self.request_ids.append(request_id)
        await self._note(ids, not_after_ms, remaining_s)
        return [answer(task_id, self.answers.get(task_id, OK)) for task_id in ids]

    async def attempt(
        self, task_id: str, *, not_after_ms: int = 60_000, remaining_s: float = 60.0, size: int = 0
    ) -> int:
        item = Item("t", task_id, pb.BatchAckItem(id=task_id, lease_token=b"x" * size))
        reply = await self.coalescer.attempt(item, not_after_ms, remaining_s)
        return int(reply.result.revision)

    def start(self, *task_ids: str, **options: Any) -> list[asyncio.Task[int]]:
        return [asyncio.ensure_future(self.attempt(each, **options)) for each in task_ids]


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def ids(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last)]


# What shares a request ---------------------------------------------------------------------


async def test_an_attempt_without_others_is_sent_alone_and_at_once() -> None:
    wire = Wire()
    assert await wire.attempt("7") == 7
    assert wire.sent == [["7"]]
    await settle()
    assert wire.idle_count == 1


async def test_callers_of_the_same_moment_share_a_request_and_each_gets_its_own_result() -> None:
    wire = Wire()
    assert await asyncio.gather(*wire.start(*ids(0, 50))) == list(range(50))
    assert wire.sent == [ids(0, 50)]


async def test_many_callers_of_the_same_moment_share_the_requests_that_may_be_sent() -> None:
    wire = Wire()
    for count, requests in [
        (SHARE_MIN_COUNT, [100]),
        (SHARE_MIN_COUNT + 1, [51, 50]),
        (250, [84, 83, 83]),
        (1_000, [334, 333, 333]),
    ]:
        wire.sent.clear()
        assert await asyncio.gather(*wire.start(*ids(0, count))) == list(range(count))
        assert [len(each) for each in wire.sent] == requests


async def test_waiting_items_are_sent_together_when_a_request_returns() -> None:
    wire = Wire()
    wire.hold()
    for number in range(IN_FLIGHT_MAX_COUNT):
        wire.start(str(number))
        await settle()
    later = wire.start(*ids(10, 40))
    await settle()
    assert wire.sent == [[str(number)] for number in range(IN_FLIGHT_MAX_COUNT)]
    wire.release()
    assert await asyncio.gather(*later) == list(range(10, 40))
    assert wire.sent[IN_FLIGHT_MAX_COUNT:] == [ids(10, 40)]
    await settle()
    assert wire.idle_count == 1


async def test_a_request_is_bounded_in_items_and_bytes() -> None:
    wire = Wire()
    full = [LIMITS.batch_max_items] * IN_FLIGHT_MAX_COUNT
    await asyncio.gather(*wire.start(*ids(0, sum(full) + 5)))
    assert [len(each) for each in wire.sent] == [*full, 5]
    wire.sent.clear()
    await asyncio.gather(*wire.start(*ids(0, 5), size=LIMITS.batch_max_bytes // 2 - 100))
    assert [len(each) for each in wire.sent] == [2, 2, 1]


async def test_a_task_is_named_once_in_a_request() -> None:
    wire = Wire()
    assert await asyncio.gather(*wire.start("1", "2", "1", "3")) == [1, 2, 1, 3]
    assert wire.sent == [["1", "2", "3"], ["1"]]


async def test_attempts_with_deadlines_far_apart_do_not_share_a_request() -> None:
    """The earliest deadline ends the batch: a call of 60 s would have had 50 ms."""
    wire = Wire()
    wire.hold()
    tasks = [*wire.start("1", remaining_s=0.05), *wire.start("2", "3", remaining_s=60.0)]
    await settle()
    assert wire.sent == [["1"], ["2", "3"]]
    assert wire.remaining_s[1] > 50
    wire.release()
    await asyncio.gather(*tasks)


# What stays each caller's own --------------------------------------------------------------


async def test_an_error_of_one_item_is_its_callers_alone() -> None:
    wire = Wire()
    wire.answers["2"] = refusal(errors.LeaseLost)
    first, second, third = await asyncio.gather(*wire.start("1", "2", "3"), return_exceptions=True)
    assert first == 1
    assert third == 3
    assert isinstance(second, AttemptFailedError)
    assert isinstance(second.failure.error, errors.LeaseLost)


async def test_a_bad_argument_of_one_call_does_not_fail_the_others() -> None:
    """A server refuses the whole batch, so each of them is sent alone."""
    wire = Wire()
    wire.failures = [failure_of_status(refusal(errors.InvalidArgument))]
    wire.answers["2"] = refusal(errors.InvalidArgument)
    first, second, third = await asyncio.gather(*wire.start("1", "2", "3"), return_exceptions=True)
    assert first == 1
    assert third == 3
    assert isinstance(second, AttemptFailedError)
    assert isinstance(second.failure.error, errors.InvalidArgument)
    assert wire.sent == [["1", "2", "3"], ["1"], ["2"], ["3"]]


async def test_a_lost_reply_leaves_the_outcome_of_each_call_unknown() -> None:
    wire = Wire()
    wire.failures = [failure_of_status(refusal(errors.WriteOutcomeUnknown))]
    results = await asyncio.gather(*wire.start("1", "2"), return_exceptions=True)
    assert [type(result) for result in results] == [AttemptFailedError] * 2
    found = [result.failure for result in results if isinstance(result, AttemptFailedError)]
    assert [failure.definite for failure in found] == [False, False]
    assert found[0].error is not found[1].error, "one that both raise would collect tracebacks"


async def test_a_batch_has_the_earliest_date_and_only_that_call_is_expired() -> None:
    wire = Wire()
    for task_id in ("1", "2"):
        wire.answers[task_id] = refusal(errors.RequestExpired)
    early = wire.start("1", not_after_ms=1_000)
    late = wire.start("2", not_after_ms=1_500)
    results = await asyncio.gather(*early, *late, return_exceptions=True)
    assert wire.dates_ms == [1_000]
    found = [result.failure for result in results if isinstance(result, AttemptFailedError)]
    assert [failure.repeatable for failure in found] == [False, True]
    assert all(failure.definite for failure in found)


async def test_a_cancelled_caller_is_not_sent_and_takes_nothing_from_the_others() -> None:
    wire = Wire()
    wire.hold()
    for number in range(IN_FLIGHT_MAX_COUNT):
        wire.start(str(number))
        await settle()
    waiting = wire.start("10", "11", "12")
    await settle()
    waiting[1].cancel()
    await settle()
    wire.release()
    assert [await waiting[0], await waiting[2]] == [10, 12]
    assert wire.sent[-1] == ["10", "12"]


async def test_a_caller_that_is_cancelled_on_the_way_does_not_end_the_request() -> None:
    wire = Wire()
    wire.hold()
    tasks = wire.start("1", "2", "3")
    await settle()
    tasks[1].cancel()
    await settle()
    wire.release()
    assert [await tasks[0], await tasks[2]] == [1, 3]


async def test_an_attempt_whose_time_ends_in_the_queue_certainly_had_no_effect() -> None:
    wire = Wire()
    wire.hold()
    for number in range(IN_FLIGHT_MAX_COUNT):
        wire.start(str(number))
        await settle()
    with pytest.raises(AttemptFailedError) as failed:
        await wire.attempt("9", remaining_s=0.01)
    assert failed.value.failure.definite
    wire.release()
    await settle()
    assert ["9"] not in wire.sent


async def test_a_caller_that_is_cancelled_in_the_turn_of_the_send_is_not_sent() -> None:
    wire = Wire()
    (gone,) = wire.start("1")
    await asyncio.sleep(0)  # the attempt waits, and is to be sent in the next turn
    gone.cancel()
    await settle()
    assert wire.sent == []
    assert wire.idle_count == 1


async def test_an_attempt_whose_time_ends_in_the_turn_of_a_send_is_not_sent() -> None:
    """Its caller learns that it certainly had no effect, so it may have none."""
    wire = Wire()
    wire.hold()
    wire.start(*ids(0, 1))
    for number in range(1, IN_FLIGHT_MAX_COUNT):
        await settle()
        wire.start(str(number))
    await settle()
    late, other = wire.start("8", "9")
    await settle()
    wire.coalescer._waiting[0].ends_s = 0.0
    wire.coalescer._end_waits()
    wire.coalescer._in_flight.clear()
    wire.coalescer._send_waiting()
    with pytest.raises(AttemptFailedError) as failed:
        await late
    assert failed.value.failure.definite
    wire.release()
    assert await other == 9
    assert not any("8" in sent for sent in wire.sent)


async def test_each_attempt_in_the_queue_ends_at_its_own_time() -> None:
    """One timer serves all: it is moved forward for an earlier end, and set again for the next."""
    wire = Wire()
    wire.hold()
    for number in range(IN_FLIGHT_MAX_COUNT):
        wire.start(str(number))
        await settle()
    (long,) = wire.start("97", remaining_s=60.0)
    (second,) = wire.start("98", remaining_s=0.06)
    (first,) = wire.start("99", remaining_s=0.02)
    await asyncio.wait([first, second], timeout=10)
    assert first.done(), "the timer was not moved forward"
    assert second.done(), "the timer was not set again"
    assert not long.done()
    for ended in (first, second):
        with pytest.raises(AttemptFailedError):
            await ended
    wire.release()
    assert await long == 97


async def test_a_repeat_shares_a_request_only_with_repeats_of_the_same_request() -> None:
    wire = Wire()
    wire.failures = [None, failure_of_status(refusal(errors.WriteOutcomeUnknown))]
    first, second = (Item("t", each, pb.BatchAckItem(id=each), "") for each in ("1", "2"))

    async def attempt(*items: Item[Any]) -> list[Any]:
        sent = [wire.coalescer.attempt(item, 60_000, 60.0) for item in items]
        return await asyncio.gather(*sent, return_exceptions=True)

    await attempt(Item("t", "0", pb.BatchAckItem(id="0"), ""))
    assert all(isinstance(each, AttemptFailedError) for each in await attempt(first, second))
    await attempt(first, Item("t", "3", pb.BatchAckItem(id="3"), ""), second)
    assert wire.sent == [["0"], ["1", "2"], ["1", "2"], ["3"]]
    assert wire.request_ids == ["r1", "r2", "r2", "r3"]


# Through the client ------------------------------------------------------------------------


def accept(message: type[Any], result: Callable[[Any], Any], part: type[Any]) -> Any:
    async def step(asked: Any) -> Any:
        return message(results=[part(result=result(item)) for item in asked.items])

    return step


def accept_enqueues(server: FakeServer) -> None:
    def result(item: Any) -> pb.EnqueueResult:
        return pb.EnqueueResult(id=item.task.id, state=task_pb2.TASK_STATE_SCHEDULED)

    async def alone(asked: pb.EnqueueRequest) -> pb.EnqueueResponse:
        return pb.EnqueueResponse(result=result(asked))

    server.script["Enqueue"] = [alone]
    server.script["BatchEnqueue"] = [accept(pb.BatchEnqueueResponse, result, pb.BatchEnqueueResult)]


def sent_ids(server: FakeServer) -> list[str]:
    batches = [item.task.id for each in server.requests["BatchEnqueue"] for item in each.items]
    return sorted([each.task.id for each in server.requests["Enqueue"]] + batches)


async def test_fifty_enqueues_cost_a_few_requests(client: Client, server: FakeServer) -> None:
    """Bounds the RPCs of a producer: each of 50 calls was one."""
    accept_enqueues(server)
    done = await asyncio.gather(*(client.enqueue("mail", b"%d" % n) for n in range(50)))
    assert sorted(each.id for each in done) == sent_ids(server)
    assert len(server.requests["Enqueue"]) + len(server.requests["BatchEnqueue"]) == 1
    dates = {each.not_after.ToMilliseconds() for each in server.requests["BatchEnqueue"]}
    assert all(dates), "the store has to know when the callers give up"


async def test_topics_and_calls_of_another_kind_do_not_share_a_request(
    client: Client, server: FakeServer
) -> None:
    accept_enqueues(server)
    await asyncio.gather(*(client.enqueue(topic, b"x") for topic in ("a", "b") for _ in range(5)))
    assert sorted(each.topic for each in server.requests["BatchEnqueue"]) == ["a", "b"]
    assert not client._coalescers, "a client may see any number of topics"


async def test_replacements_of_the_same_moment_share_a_request_and_its_request_id(
    client: Client, server: FakeServer
) -> None:
    accept_enqueues(server)
    modes = [
        (OnConflict.FAIL, None),
        (OnConflict.REPLACE_IF_SCHEDULED, None),
        (OnConflict.REPLACE_IF_FINISHED, None),
        (OnConflict.DEBOUNCE, timedelta(seconds=5)),
    ]
    await asyncio.gather(
        *(
            client.enqueue("mail", b"x", task_id=f"t{n}", on_conflict=mode, debounce_limit=limit)
            for n, (mode, limit) in enumerate(modes)
        )
    )
    (replacing,) = server.requests["BatchEnqueue"]
    assert [item.task.id for item in replacing.items] == ["t1", "t2", "t3"]
    assert replacing.request_id
    (by_id,) = server.requests["Enqueue"]
    assert by_id.task.id == "t0"


async def test_a_repeated_cancel_has_the_request_id_of_the_request_that_was_lost(
    client: Client, server: FakeServer
) -> None:
    """Else it could end the task that was enqueued under the same id in between."""
    lost = refusal(errors.WriteOutcomeUnknown)

    async def done(asked: Any) -> Any:
        part = pb.BatchCancelResult(result=pb.CancelResult(revision=2))
        if isinstance(asked, pb.CancelRequest):
            return pb.CancelResponse(result=part.result)
        return pb.BatchCancelResponse(results=[part] * len(asked.items))

    both = pb.BatchCancelResponse(results=[pb.BatchCancelResult(status=lost)] * 2)
    server.script["BatchCancel"] = [both, done]
    server.script["Cancel"] = [done]
    results = await asyncio.gather(*(client.cancel("mail", each) for each in ("a", "b")))
    assert [result.revision for result in results] == [2, 2]
    (first,) = server.requests["BatchCancel"][:1]
    repeats = [*server.requests["Cancel"], *server.requests["BatchCancel"][1:]]
    assert first.request_id
    assert {each.request_id for each in repeats} == {first.request_id}


@pytest.mark.parametrize("kind", ["Ack", "Nack", "Extend", "Release", "Snooze"])
async def test_calls_about_leases_share_requests(
    kind: str, client: Client, server: FakeServer
) -> None:
    response, part = getattr(pb, f"Batch{kind}Response"), getattr(pb, f"Batch{kind}Result")
    result = getattr(pb, f"{kind}Result")
    state = {"state": task_pb2.TASK_STATE_READY} if kind == "Nack" else {}
    server.script[f"Batch{kind}"] = [
        accept(response, lambda item: result(revision=int(item.id), **state), part)
    ]
    held = [LeaseRef("mail", str(n), b"%d" % n) for n in range(20)]
    more = {"Snooze": (timedelta(seconds=3),), "Extend": (timedelta(seconds=4),)}.get(kind, ())
    options = {"error": "it broke"} if kind == "Nack" else {}
    method = getattr(client, kind.lower())
    done = await asyncio.gather(*(method(lease, *more, **options) for lease in held))
    assert [each.revision for each in done] == list(range(20))
    (sent,) = server.requests[f"Batch{kind}"]
    assert [(item.id, item.lease_token) for item in sent.items] == [
        (str(n), b"%d" % n) for n in range(20)
    ]
    if kind == "Nack":
        assert {item.verdict.error for item in sent.items} == {"it broke"}
    elif kind == "Snooze":
        assert {item.delay.seconds for item in sent.items} == {3}
    elif kind == "Extend":
        assert {item.lease_duration.seconds for item in sent.items} == {4}


async def test_an_item_whose_outcome_is_open_is_repeated_and_no_other(
    client: Client, server: FakeServer
) -> None:
    def results(*statuses: status_pb2.Status) -> pb.BatchAckResponse:
        return pb.BatchAckResponse(results=[pb.BatchAckResult(status=each) for each in statuses])

    server.script["BatchAck"] = [results(OK, refusal(errors.WriteOutcomeUnknown), OK)]
    server.script["Ack"] = [refusal(errors.LeaseLost)]
    held = [LeaseRef("mail", name, b"token") for name in "abc"]
    first, second, third = await asyncio.gather(
        *(client.ack(lease) for lease in held), return_exceptions=True
    )
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert isinstance(second, errors.OutcomeUnknown), "LEASE_LOST after an unknown attempt"
    assert [each.id for each in server.requests["Ack"]] == ["b"]


async def test_callers_that_wait_are_answered_when_the_client_is_closed(
    server: FakeServer,
) -> None:
    started = asyncio.Event()

    async def never(_: Any) -> Any:
        started.set()
        await asyncio.sleep(60)

    server.script["Enqueue"] = server.script["BatchEnqueue"] = [never]
    client = Client(server.address, timeout_s=30)
    calls = [asyncio.ensure_future(client.enqueue("mail", b"x")) for _ in range(20)]
    await started.wait()
    await client.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {errors.OutcomeUnknown}


async def test_threads_of_a_sync_client_share_requests(server: FakeServer) -> None:
    accept_enqueues(server)

    def produce() -> list[str]:
        with SyncClient(server.address) as client, ThreadPoolExecutor(20) as threads:
            return [
                each.id for each in threads.map(lambda n: client.enqueue("m", b"%d" % n), range(60))
            ]

    assert sorted(await asyncio.to_thread(produce)) == sent_ids(server)
    assert len(server.requests["Enqueue"]) + len(server.requests["BatchEnqueue"]) < 60


def held(step: Any, first: asyncio.Event, release: asyncio.Event) -> Any:
    """Answers as ``step``, when it is released; ``first`` is set by the first request."""

    async def answer_later(asked: Any) -> Any:
        first.set()
        await release.wait()
        return await step(asked)

    return answer_later


@pytest.mark.parametrize("bound", ["count", "bytes"])
async def test_calls_that_wait_are_bounded_and_one_more_is_refused_and_not_sent(
    bound: str, client: Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate that the server cannot keep up with, a program would grow without end."""
    accept_enqueues(server)
    first, release = asyncio.Event(), asyncio.Event()
    for name in ("Enqueue", "BatchEnqueue"):
        (step,) = server.script[name]
        server.script[name] = [held(step, first, release)]
    monkeypatch.setattr(coalesce, "IN_FLIGHT_MAX_COUNT", 1)
    if bound == "count":
        monkeypatch.setattr(coalesce, "WAITING_MAX_COUNT", 5)
    else:
        monkeypatch.setattr(coalesce, "WAITING_MAX_BYTES", 5 * 1_000)

    def enqueue() -> asyncio.Future[Any]:
        return asyncio.ensure_future(client.enqueue("mail", b"x" * 1_000))

    sent = [enqueue(), enqueue()]
    await first.wait()
    waiting = [enqueue() for _ in range(5)]
    await settle()
    with pytest.raises(errors.Overloaded, match=r"5 calls of \d+ bytes wait in this client") as it:
        await enqueue()
    assert it.value.definite
    assert it.value.retry_delay_s
    assert (await asyncio.gather(enqueue(), return_exceptions=True))[0] is not it.value
    # Another topic has a queue of its own, and a caller that gives up makes room.
    other = asyncio.ensure_future(client.enqueue("other", b"x"))
    waiting.pop().cancel()
    await settle()
    waiting.append(enqueue())
    await settle()
    release.set()
    done = await asyncio.gather(*sent, *waiting, other)
    assert sorted(each.id for each in done) == sent_ids(server)
    assert len(done) == 8
    await client.enqueue("mail", b"x")


async def test_a_server_that_is_away_gives_each_caller_a_definite_error() -> None:
    async with Client("127.0.0.1:1", timeout_s=0.3) as client:
        results = await asyncio.gather(
            *(client.enqueue("mail", b"x") for _ in range(5)), return_exceptions=True
        )
    assert {type(result) for result in results} == {errors.NotConnected}
