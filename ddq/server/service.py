"""DelayQueueService: requests in, JobStore or Retrieval, replies out, and nothing else.

Handlers take a plain Call instead of gRPC's context and raise DdqError, so that they also run
where there is no gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.message import Message

from ddq.config import LIMITS, MS_PER_SECOND
from ddq.server import validation as check
from ddq.server import wire
from ddq.server.new_tasks import TaskReader
from ddq.server.notifier import ReadyNotifier
from ddq.server.requests import (
    Read,
    extension,
    lease_ms,
    many,
    one,
    page_size,
    postponement,
    rejection,
    removal,
    settlement,
    topics,
    view_is_full,
)
from ddq.server.retrieval import Retrieval, Wanted
from ddq.server.rpc import CallFactory
from ddq.server.status import OK, to_status
from ddq.server.streaming import Streams
from ddq.server.validation import Problems
from ddq.store.open import Store
from ddq.store.runner import Call
from ddq.task import NewTask, Outcome, Receipt, TaskState
from ddq.v1 import delay_queue_service_pb2 as pb

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
V = TypeVar("V")
R = TypeVar("R", bound=Message)


class _Operation(Protocol[T_contra, V]):
    """A method of JobStore that takes a batch of items."""

    async def __call__(
        self, topic_name: str, items: Sequence[T_contra], call: Call, /
    ) -> list[Outcome[V]]: ...


_Put = Callable[[Any, V, Receipt | None], None]
"""Sets the result about one item: the message, the value, and the receipt of its script."""


class QueueService:
    """The handlers, one an RPC.

    Args:
        store: opened.
        notifier: wakes calls that wait.
    """

    def __init__(self, store: Store, notifier: ReadyNotifier) -> None:
        self._store = store
        self._jobs = store.jobs
        self._read = TaskReader(store.clock, store.entropy)
        known_node = store.router.topology.known_node
        self._retrieval = Retrieval(store.topics, store.jobs, notifier, known_node)
        self._streams = Streams(self._retrieval)

    def end_waits(self) -> None:
        """Answers every Retrieve that waits for a task, empty; none waits from now on."""
        self._retrieval.end_waits()
        self._streams.end()

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._retrieval.close()

    # Producing -----------------------------------------------------------------------------

    async def enqueue(self, request: pb.EnqueueRequest, call: Call) -> pb.EnqueueResponse:
        """Adds one task."""
        task = self._read.new_task(request)
        (outcome,) = await self._jobs.enqueue(request.topic, [task], call)
        response = pb.EnqueueResponse(receipt=wire.receipt(outcome.receipt))
        wire.put_enqueued(response.result, outcome.unwrap(), outcome.receipt)
        return response

    async def batch_enqueue(
        self, request: pb.BatchEnqueueRequest, call: Call
    ) -> pb.BatchEnqueueResponse:
        """Adds tasks to one topic."""
        tasks = self._read.new_tasks(request)
        good = [task for task in tasks if isinstance(task, NewTask)]
        stored = await self._jobs.enqueue(request.topic, good, call) if good else []
        in_order = iter(stored)
        outcomes = [
            next(in_order) if isinstance(task, NewTask) else Outcome(error=task) for task in tasks
        ]
        return _answered(pb.BatchEnqueueResponse(), outcomes, wire.put_enqueued)

    # Consuming -----------------------------------------------------------------------------

    async def retrieve(self, request: pb.RetrieveRequest, call: Call) -> pb.RetrieveResponse:
        """Leases due tasks, waiting for the first."""
        problems = Problems()
        names = topics(problems, request.topics)
        max_tasks = check.count(
            problems, request.max_tasks, "max_tasks", default=1, most=LIMITS.retrieve_max_tasks
        )
        max_bytes = check.count(
            problems,
            request.max_bytes,
            "max_bytes",
            default=LIMITS.retrieve_max_bytes,
            most=LIMITS.retrieve_max_bytes,
        )
        asked_lease_ms = lease_ms(problems, request)
        wait_ms = check.duration_ms(
            problems, request.wait, "wait", least_ms=0, most_ms=LIMITS.retrieve_wait_max_ms
        )
        check.request_id(problems, request.request_id, required=False)
        problems.raise_if_any()

        wanted = Wanted(names, max_tasks, max_bytes, asked_lease_ms, wait_ms / MS_PER_SECOND)
        leased = await self._retrieval.retrieve(wanted, call)
        response = pb.RetrieveResponse()
        wire.put_leased_tasks(response.tasks, leased)
        return response

    async def stream_retrieve(
        self,
        requests: AsyncIterator[pb.StreamRetrieveRequest],
        write: Callable[[pb.StreamRetrieveResponse], Awaitable[None]],
        calls: CallFactory,
    ) -> None:
        """Leases due tasks as far as there is credit."""
        await self._streams.run(requests, write, calls)

    async def ack(self, request: pb.AckRequest, call: Call) -> pb.AckResponse:
        """Finishes a leased task."""
        return await self._single(
            request, call, settlement, self._jobs.ack, wire.put_revision, pb.AckResponse
        )

    async def batch_ack(self, request: pb.BatchAckRequest, call: Call) -> pb.BatchAckResponse:
        """Finishes leased tasks."""
        return await self._batch(
            request, call, settlement, self._jobs.ack, wire.put_revision, pb.BatchAckResponse
        )

    async def run_again(self, request: pb.RunAgainRequest, call: Call) -> pb.RunAgainResponse:
        """Finishes a leased task and enqueues its next run."""
        item = one(request, self._read.continuation)
        outcome = await self._jobs.run_again(request.topic, item, call)
        made = outcome.unwrap()
        return pb.RunAgainResponse(
            result=pb.RunAgainResult(
                revision=made.incarnation,
                incarnation=made.incarnation,
                due_time=wire.timestamp(made.due_ms),
            ),
            receipt=wire.receipt(outcome.receipt),
        )

    async def nack(self, request: pb.NackRequest, call: Call) -> pb.NackResponse:
        """Ends an attempt without success."""
        return await self._single(
            request, call, rejection, self._jobs.nack, wire.put_nacked, pb.NackResponse
        )

    async def batch_nack(self, request: pb.BatchNackRequest, call: Call) -> pb.BatchNackResponse:
        """Ends attempts without success."""
        return await self._batch(
            request, call, rejection, self._jobs.nack, wire.put_nacked, pb.BatchNackResponse
        )

    async def extend(self, request: pb.ExtendRequest, call: Call) -> pb.ExtendResponse:
        """Prolongs a lease."""
        return await self._single(
            request, call, extension, self._jobs.extend, wire.put_extended, pb.ExtendResponse
        )

    async def batch_extend(
        self, request: pb.BatchExtendRequest, call: Call
    ) -> pb.BatchExtendResponse:
        """Prolongs leases."""
        return await self._batch(
            request, call, extension, self._jobs.extend, wire.put_extended, pb.BatchExtendResponse
        )

    async def release(self, request: pb.ReleaseRequest, call: Call) -> pb.ReleaseResponse:
        """Hands a lease back; its attempt does not count."""
        return await self._single(
            request, call, settlement, self._jobs.release, wire.put_revision, pb.ReleaseResponse
        )

    async def batch_release(
        self, request: pb.BatchReleaseRequest, call: Call
    ) -> pb.BatchReleaseResponse:
        """Hands leases back; their attempts do not count."""
        return await self._batch(
            request,
            call,
            settlement,
            self._jobs.release,
            wire.put_revision,
            pb.BatchReleaseResponse,
        )

    async def snooze(self, request: pb.SnoozeRequest, call: Call) -> pb.SnoozeResponse:
        """Puts a leased task off without counting its attempt."""
        return await self._single(
            request, call, postponement, self._jobs.snooze, wire.put_snoozed, pb.SnoozeResponse
        )

    async def batch_snooze(
        self, request: pb.BatchSnoozeRequest, call: Call
    ) -> pb.BatchSnoozeResponse:
        """Puts leased tasks off without counting their attempts."""
        return await self._batch(
            request, call, postponement, self._jobs.snooze, wire.put_snoozed, pb.BatchSnoozeResponse
        )

    # Changing one's mind -------------------------------------------------------------------

    async def cancel(self, request: pb.CancelRequest, call: Call) -> pb.CancelResponse:
        """Ends a task that has not finished."""
        return await self._single(
            request, call, removal, self._jobs.remove, wire.put_cancelled, pb.CancelResponse
        )

    async def batch_cancel(
        self, request: pb.BatchCancelRequest, call: Call
    ) -> pb.BatchCancelResponse:
        """Ends tasks that have not finished."""
        return await self._batch(
            request, call, removal, self._jobs.remove, wire.put_cancelled, pb.BatchCancelResponse
        )

    async def reschedule(self, request: pb.RescheduleRequest, call: Call) -> pb.RescheduleResponse:
        """Gives a task another due time."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.task_id(problems, request.id)
        check.request_id(problems, request.request_id, required=True)
        schedule = check.schedule(problems, request, self._store.clock.now_ms())
        problems.raise_if_any()
        expected = request.expected_revision if request.HasField("expected_revision") else None
        outcome = await self._jobs.reschedule(request.topic, request.id, schedule, expected, call)
        changed = outcome.unwrap()
        return pb.RescheduleResponse(
            due_time=wire.timestamp(changed.at_ms),
            revision=changed.revision,
            receipt=wire.receipt(outcome.receipt),
        )

    # Looking -------------------------------------------------------------------------------

    async def get_task(self, request: pb.GetTaskRequest, call: Call) -> pb.GetTaskResponse:
        """One task."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.task_id(problems, request.id)
        full = view_is_full(problems, request.view)
        problems.raise_if_any()
        outcome = await self._jobs.get(request.topic, request.id, full=full, call=call)
        return pb.GetTaskResponse(
            task=wire.task(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def list_tasks(self, request: pb.ListTasksRequest, call: Call) -> pb.ListTasksResponse:
        """One page of the tasks in one state."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        if request.state == 0:
            problems.add("state", "is not given; a listing is of one state")
        state = check.enum(problems, request.state, TaskState, "state", default=TaskState.SCHEDULED)
        limit = page_size(problems, request)
        full = view_is_full(problems, request.view)
        problems.raise_if_any()
        tasks, cursor = await self._jobs.list_tasks(
            request.topic,
            state,
            full=full,
            limit=limit,
            cursor=wire.cursor(request.page_token),
            call=call,
        )
        return pb.ListTasksResponse(
            tasks=[wire.task(task) for task in tasks], next_page_token=wire.page_token(cursor)
        )

    # What single and batch forms share -----------------------------------------------------

    async def _single(
        self,
        request: Any,
        call: Call,
        read: Read[T],
        operation: _Operation[T, V],
        put: _Put[V],
        response: Callable[..., R],
    ) -> R:
        (outcome,) = await operation(request.topic, [one(request, read)], call)
        message: Any = response(receipt=wire.receipt(outcome.receipt))
        put(message.result, outcome.unwrap(), outcome.receipt)
        return cast("R", message)

    async def _batch(
        self,
        request: Any,
        call: Call,
        read: Read[T],
        operation: _Operation[T, V],
        put: _Put[V],
        response: Callable[[], R],
    ) -> R:
        return _answered(response(), await operation(request.topic, many(request, read), call), put)


def _answered(response: R, outcomes: Sequence[Outcome[V]], put: _Put[V]) -> R:
    """A batch's response with one result per item, in order, each with its own status.

    Items that one script answered share a receipt, so most results begin as copies of one message.

    Args:
        put: sets the result of an item that is OK.
    """
    results: Any = response.results  # type: ignore[attr-defined]
    receipt: Receipt | None = None
    common: Any = None
    for outcome in outcomes:
        answer = results.add()
        if common is None or outcome.receipt is not receipt:
            receipt = outcome.receipt
            common = type(answer)(status=OK, receipt=wire.receipt(receipt))
        answer.CopyFrom(common)
        if outcome.error is not None:
            answer.status.CopyFrom(to_status(outcome.error))
        else:
            put(answer.result, outcome.unwrap(), receipt)
    return response
