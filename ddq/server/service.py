"""DelayQueueService: requests in, JobStore or Retrieval, replies out, and nothing else.

Handlers take a plain Call instead of gRPC's context and raise DdqError, so that they also run
where there is no gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from ddq.config import LIMITS, MS_PER_SECOND
from ddq.errors import InvalidArgument
from ddq.server import validation as check
from ddq.server import wire
from ddq.server.notifier import ReadyNotifier
from ddq.server.requests import (
    REPLACING,
    Read,
    TaskReader,
    extension,
    headers_bytes,
    lease_ms,
    many,
    one,
    page_size,
    postponement,
    rejection,
    removal,
    settlement,
    view_is_full,
)
from ddq.server.retrieval import Retrieval, Wanted
from ddq.server.status import OK, to_status
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

    def end_waits(self) -> None:
        """Answers every Retrieve that waits for a task, empty; none waits from now on."""
        self._retrieval.end_waits()

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._retrieval.close()

    # Producing -----------------------------------------------------------------------------

    async def enqueue(self, request: pb.EnqueueRequest, call: Call) -> pb.EnqueueResponse:
        """Adds one task."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        task = self._read.new_task(problems, request.topic, request)
        check.request_id(problems, request.request_id, required=task.on_conflict in REPLACING)
        problems.raise_if_any()
        (outcome,) = await self._jobs.enqueue(request.topic, [task], call)
        return pb.EnqueueResponse(
            result=wire.enqueue_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_enqueue(
        self, request: pb.BatchEnqueueRequest, call: Call
    ) -> pb.BatchEnqueueResponse:
        """Adds tasks to one topic."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        tasks: list[NewTask | InvalidArgument] = []

        def read(item: pb.BatchEnqueueItem) -> None:
            own = Problems()
            task = self._read.new_task(own, request.topic, item)
            try:
                own.raise_if_any()
                tasks.append(task)
            except InvalidArgument as error:
                tasks.append(error)

        check.batch(problems, request.items, "items", read, lambda item: item.task.id)
        size_bytes = sum(
            len(item.task.payload) + headers_bytes(item.task) for item in request.items
        )
        if size_bytes > LIMITS.batch_max_bytes:
            problems.add(
                "items",
                f"has {size_bytes} bytes of payloads and headers; give at most "
                f"{LIMITS.batch_max_bytes}",
            )
        good = [task for task in tasks if isinstance(task, NewTask)]
        check.request_id(
            problems,
            request.request_id,
            required=any(task.on_conflict in REPLACING for task in good),
        )
        problems.raise_if_any()
        stored = iter(await self._jobs.enqueue(request.topic, good, call) if good else [])
        outcomes = [
            next(stored) if isinstance(task, NewTask) else Outcome(error=task) for task in tasks
        ]
        return pb.BatchEnqueueResponse(
            results=_results(pb.BatchEnqueueResult, outcomes, wire.enqueue_result)
        )

    # Consuming -----------------------------------------------------------------------------

    async def retrieve(self, request: pb.RetrieveRequest, call: Call) -> pb.RetrieveResponse:
        """Leases due tasks, waiting for the first."""
        problems = Problems()
        topics = list(request.topics)
        if not 1 <= len(topics) <= LIMITS.retrieve_topics_max_count:
            problems.add(
                "topics", f"has {len(topics)} names; give 1 to {LIMITS.retrieve_topics_max_count}"
            )
        else:
            for position, name in enumerate(topics):
                check.topic_name(problems, name, f"topics[{position}]")
            check.unique_ids(problems, topics, "topics")
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

        wanted = Wanted(topics, max_tasks, max_bytes, asked_lease_ms, wait_ms / MS_PER_SECOND)
        leased = await self._retrieval.retrieve(wanted, call)
        return pb.RetrieveResponse(tasks=[wire.leased_task(lease) for lease in leased])

    async def ack(self, request: pb.AckRequest, call: Call) -> pb.AckResponse:
        """Finishes a leased task."""
        return await self._single(
            request, call, settlement, self._jobs.ack, wire.ack_result, pb.AckResponse
        )

    async def batch_ack(self, request: pb.BatchAckRequest, call: Call) -> pb.BatchAckResponse:
        """Finishes leased tasks."""
        results = await self._batch(
            request, call, settlement, self._jobs.ack, wire.ack_result, pb.BatchAckResult
        )
        return pb.BatchAckResponse(results=results)

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
            request, call, rejection, self._jobs.nack, wire.nack_result, pb.NackResponse
        )

    async def batch_nack(self, request: pb.BatchNackRequest, call: Call) -> pb.BatchNackResponse:
        """Ends attempts without success."""
        results = await self._batch(
            request, call, rejection, self._jobs.nack, wire.nack_result, pb.BatchNackResult
        )
        return pb.BatchNackResponse(results=results)

    async def extend(self, request: pb.ExtendRequest, call: Call) -> pb.ExtendResponse:
        """Prolongs a lease."""
        return await self._single(
            request, call, extension, self._jobs.extend, wire.extend_result, pb.ExtendResponse
        )

    async def batch_extend(
        self, request: pb.BatchExtendRequest, call: Call
    ) -> pb.BatchExtendResponse:
        """Prolongs leases."""
        results = await self._batch(
            request, call, extension, self._jobs.extend, wire.extend_result, pb.BatchExtendResult
        )
        return pb.BatchExtendResponse(results=results)

    async def release(self, request: pb.ReleaseRequest, call: Call) -> pb.ReleaseResponse:
        """Hands a lease back; its attempt does not count."""
        return await self._single(
            request, call, settlement, self._jobs.release, wire.release_result, pb.ReleaseResponse
        )

    async def batch_release(
        self, request: pb.BatchReleaseRequest, call: Call
    ) -> pb.BatchReleaseResponse:
        """Hands leases back; their attempts do not count."""
        results = await self._batch(
            request,
            call,
            settlement,
            self._jobs.release,
            wire.release_result,
            pb.BatchReleaseResult,
        )
        return pb.BatchReleaseResponse(results=results)

    async def snooze(self, request: pb.SnoozeRequest, call: Call) -> pb.SnoozeResponse:
        """Puts a leased task off without counting its attempt."""
        return await self._single(
            request, call, postponement, self._jobs.snooze, wire.snooze_result, pb.SnoozeResponse
        )

    async def batch_snooze(
        self, request: pb.BatchSnoozeRequest, call: Call
    ) -> pb.BatchSnoozeResponse:
        """Puts leased tasks off without counting their attempts."""
        results = await self._batch(
            request, call, postponement, self._jobs.snooze, wire.snooze_result, pb.BatchSnoozeResult
        )
        return pb.BatchSnoozeResponse(results=results)

    # Changing one's mind -------------------------------------------------------------------

    async def cancel(self, request: pb.CancelRequest, call: Call) -> pb.CancelResponse:
        """Ends a task that has not finished."""
        return await self._single(
            request, call, removal, self._jobs.remove, wire.cancel_result, pb.CancelResponse
        )

    async def batch_cancel(
        self, request: pb.BatchCancelRequest, call: Call
    ) -> pb.BatchCancelResponse:
        """Ends tasks that have not finished."""
        results = await self._batch(
            request, call, removal, self._jobs.remove, wire.cancel_result, pb.BatchCancelResult
        )
        return pb.BatchCancelResponse(results=results)

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
        result: Callable[[V, Receipt | None], Message],
        response: Callable[..., R],
    ) -> R:
        outcomes = await operation(request.topic, [one(request, read)], call)
        (outcome,) = outcomes
        return response(
            result=result(outcome.unwrap(), outcome.receipt), receipt=wire.receipt(outcome.receipt)
        )

    async def _batch(
        self,
        request: Any,
        call: Call,
        read: Read[T],
        operation: _Operation[T, V],
        result: Callable[[V, Receipt | None], Message],
        kind: Callable[..., R],
    ) -> list[R]:
        outcomes = await operation(request.topic, many(request, read), call)
        return _results(kind, outcomes, result)


def _results(
    kind: Callable[..., R],
    outcomes: Sequence[Outcome[V]],
    result: Callable[[V, Receipt | None], Message],
) -> list[R]:
    """One result per item, in order, each with its own status.

    Items that one script answered share a receipt, which is written once.
    """
    receipts: dict[int, Message | None] = {}
    results = []
    for outcome in outcomes:
        key = id(outcome.receipt)
        if key not in receipts:
            receipts[key] = wire.receipt(outcome.receipt)
        results.append(
            kind(
                status=to_status(outcome.error) if outcome.error else OK,
                result=None if outcome.value is None else result(outcome.value, outcome.receipt),
                receipt=receipts[key],
            )
        )
    return results
