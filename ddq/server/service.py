"""DelayQueueService: requests in, JobStore or Retrieval, replies out, and nothing else.

Handlers take a plain Call instead of gRPC's context and raise DdqError, so that they also run
where there is no gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from google.rpc import status_pb2

from ddq.config import DEFAULTS, LIMITS, MS_PER_SECOND
from ddq.entropy import uuid7
from ddq.errors import InvalidArgument
from ddq.server import validation as check
from ddq.server import wire
from ddq.server.notifier import ReadyBell
from ddq.server.retrieval import Retrieval, Wanted
from ddq.server.status import OK, to_status
from ddq.server.validation import Problems
from ddq.store.job_values import (
    Changed,
    Content,
    Continuation,
    Extension,
    Postponement,
    Rejection,
    Removal,
    Settlement,
)
from ddq.store.open import Store
from ddq.store.records import content_digest, pack_headers
from ddq.store.runner import Call
from ddq.task import NewTask, OnConflict, Outcome, Receipt, TaskState
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

T = TypeVar("T")
R = TypeVar("R", bound=Message)

_CONDITIONAL = {OnConflict.REPLACE_IF_SCHEDULED, OnConflict.REPLACE_IF_FINISHED}
# Forms that may end what holds the id: a repeat is known by its request_id.
_REPLACING = {*_CONDITIONAL, OnConflict.DEBOUNCE}


class _BatchResult(Protocol):
    """What BatchAckResult and its kin have in common."""

    def __init__(self, *, status: status_pb2.Status, result: Any, receipt: Any) -> None: ...


class QueueService:
    """The handlers, one an RPC.

    Args:
        store: opened.
        bell: a listener of the store's hints.
    """

    def __init__(self, store: Store, bell: ReadyBell) -> None:
        self._store = store
        self._jobs = store.jobs
        known_node = store.router.topology.known_node
        self._retrieval = Retrieval(store.topics, store.jobs, bell, known_node)

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
        task = self._new_task(problems, request.topic, request)
        check.request_id(problems, request.request_id, required=task.on_conflict in _REPLACING)
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
            task = self._new_task(own, request.topic, item)
            try:
                own.raise_if_any()
                tasks.append(task)
            except InvalidArgument as error:
                tasks.append(error)

        check.batch(problems, request.items, "items", read, lambda item: item.task.id)
        size_bytes = sum(
            len(item.task.payload) + _headers_bytes(item.task) for item in request.items
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
            required=any(task.on_conflict in _REPLACING for task in good),
        )
        problems.raise_if_any()
        stored = iter(await self._jobs.enqueue(request.topic, good, call) if good else [])
        outcomes = [
            next(stored) if isinstance(task, NewTask) else Outcome(error=task) for task in tasks
        ]
        return pb.BatchEnqueueResponse(
            results=_results(pb.BatchEnqueueResult, outcomes, wire.enqueue_result)
        )

    def _new_task(
        self, problems: Problems, topic: str, item: pb.EnqueueRequest | pb.BatchEnqueueItem
    ) -> NewTask:
        spec = item.task
        mode = check.enum(
            problems, item.on_conflict, OnConflict, "on_conflict", default=OnConflict.FAIL
        )
        expected_revision = item.expected_revision if item.HasField("expected_revision") else None
        if expected_revision is not None and mode not in _CONDITIONAL:
            problems.add("expected_revision", "goes with the REPLACE forms of on_conflict only")
        limit_ms = 0
        if mode is OnConflict.DEBOUNCE:
            limit_ms = check.duration_ms(
                problems,
                item.debounce_limit,
                "debounce_limit",
                least_ms=LIMITS.debounce_limit_min_ms,
                most_ms=LIMITS.delay_max_ms,
            )
            if not spec.id:
                problems.add("task.id", "is empty; DEBOUNCE is for tasks of one id")
        elif item.HasField("debounce_limit"):
            problems.add("debounce_limit", "goes with on_conflict DEBOUNCE only")
        now_ms = self._store.clock.now_ms()
        with problems.within("task"):
            if spec.id:
                check.task_id(problems, spec.id)
            with problems.within("retry_policy"):
                policy = check.retry_policy(problems, spec.retry_policy)
            return NewTask(
                id=spec.id or uuid7(now_ms, self._store.entropy),
                payload=check.payload(problems, spec.payload),
                headers=check.headers(problems, spec.headers),
                schedule=check.schedule(problems, spec, now_ms),
                retry_policy=policy,
                digest=_digest(topic, spec),
                on_conflict=mode,
                expected_revision=expected_revision,
                debounce_limit_ms=limit_ms,
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
        lease_ms = self._lease_ms(problems, request)
        wait_ms = check.duration_ms(
            problems, request.wait, "wait", least_ms=0, most_ms=LIMITS.retrieve_wait_max_ms
        )
        check.request_id(problems, request.request_id, required=False)
        problems.raise_if_any()

        wanted = Wanted(topics, max_tasks, max_bytes, lease_ms, wait_ms / MS_PER_SECOND)
        leased = await self._retrieval.retrieve(wanted, call)
        return pb.RetrieveResponse(tasks=[wire.leased_task(lease) for lease in leased])

    def _lease_ms(
        self,
        problems: Problems,
        request: pb.RetrieveRequest | pb.ExtendRequest | pb.BatchExtendItem,
    ) -> int | None:
        """The lease that is asked for; None for the topic's default."""
        if not request.HasField("lease_duration"):
            return None
        return check.duration_ms(
            problems,
            request.lease_duration,
            "lease_duration",
            least_ms=LIMITS.lease_min_ms,
            most_ms=LIMITS.lease_max_ms,
        )

    async def ack(self, request: pb.AckRequest, call: Call) -> pb.AckResponse:
        """Finishes a leased task."""
        item = self._one(request, _settlement)
        (outcome,) = await self._jobs.ack(request.topic, [item], call)
        return pb.AckResponse(
            result=_ack_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_ack(self, request: pb.BatchAckRequest, call: Call) -> pb.BatchAckResponse:
        """Finishes leased tasks."""
        items = self._many(request, _settlement)
        outcomes = await self._jobs.ack(request.topic, items, call)
        return pb.BatchAckResponse(results=_results(pb.BatchAckResult, outcomes, _ack_result))

    async def run_again(self, request: pb.RunAgainRequest, call: Call) -> pb.RunAgainResponse:
        """Finishes a leased task and enqueues its next run."""
        item = self._one(request, self._continuation)
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

    def _continuation(self, problems: Problems, request: pb.RunAgainRequest) -> Continuation:
        settlement = _settlement(problems, request)
        content = None
        with problems.within("next"):
            schedule = check.schedule(problems, request.next, self._store.clock.now_ms())
            if request.next.HasField("content"):
                asked = request.next.content
                with problems.within("content"):
                    payload = check.payload(problems, asked.payload)
                    headers = check.headers(problems, asked.headers)
                digest = content_digest(request.topic.encode(), payload, pack_headers(headers))
                content = Content(payload, headers, digest)
        return Continuation(settlement.id, settlement.token, schedule, content)

    async def nack(self, request: pb.NackRequest, call: Call) -> pb.NackResponse:
        """Ends an attempt without success."""
        item = self._one(request, _rejection)
        (outcome,) = await self._jobs.nack(request.topic, [item], call)
        return pb.NackResponse(
            result=_nack_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_nack(self, request: pb.BatchNackRequest, call: Call) -> pb.BatchNackResponse:
        """Ends attempts without success."""
        items = self._many(request, _rejection)
        outcomes = await self._jobs.nack(request.topic, items, call)
        return pb.BatchNackResponse(results=_results(pb.BatchNackResult, outcomes, _nack_result))

    async def extend(self, request: pb.ExtendRequest, call: Call) -> pb.ExtendResponse:
        """Prolongs a lease."""
        item = self._one(request, self._extension)
        (outcome,) = await self._jobs.extend(request.topic, [item], call)
        return pb.ExtendResponse(
            result=_extend_result(outcome.unwrap(), outcome.receipt),
            receipt=wire.receipt(outcome.receipt),
        )

    async def batch_extend(
        self, request: pb.BatchExtendRequest, call: Call
    ) -> pb.BatchExtendResponse:
        """Prolongs leases."""
        items = self._many(request, self._extension)
        outcomes = await self._jobs.extend(request.topic, items, call)
        results = [
            pb.BatchExtendResult(
                status=to_status(outcome.error) if outcome.error else OK,
                result=_extend_result(outcome.value, outcome.receipt) if outcome.value else None,
                receipt=wire.receipt(outcome.receipt),
            )
            for outcome in outcomes
        ]
        return pb.BatchExtendResponse(results=results)

    def _extension(
        self, problems: Problems, item: pb.ExtendRequest | pb.BatchExtendItem
    ) -> Extension:
        settlement = _settlement(problems, item)
        return Extension(settlement.id, settlement.token, self._lease_ms(problems, item))

    async def release(self, request: pb.ReleaseRequest, call: Call) -> pb.ReleaseResponse:
        """Hands a lease back; its attempt does not count."""
        item = self._one(request, _settlement)
        (outcome,) = await self._jobs.release(request.topic, [item], call)
        return pb.ReleaseResponse(
            result=_release_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_release(
        self, request: pb.BatchReleaseRequest, call: Call
    ) -> pb.BatchReleaseResponse:
        """Hands leases back; their attempts do not count."""
        items = self._many(request, _settlement)
        outcomes = await self._jobs.release(request.topic, items, call)
        return pb.BatchReleaseResponse(
            results=_results(pb.BatchReleaseResult, outcomes, _release_result)
        )

    async def snooze(self, request: pb.SnoozeRequest, call: Call) -> pb.SnoozeResponse:
        """Puts a leased task off without counting its attempt."""
        item = self._one(request, _postponement)
        (outcome,) = await self._jobs.snooze(request.topic, [item], call)
        return pb.SnoozeResponse(
            result=_snooze_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_snooze(
        self, request: pb.BatchSnoozeRequest, call: Call
    ) -> pb.BatchSnoozeResponse:
        """Puts leased tasks off without counting their attempts."""
        items = self._many(request, _postponement)
        outcomes = await self._jobs.snooze(request.topic, items, call)
        return pb.BatchSnoozeResponse(
            results=_results(pb.BatchSnoozeResult, outcomes, _snooze_result)
        )

    # Changing one's mind -------------------------------------------------------------------

    async def cancel(self, request: pb.CancelRequest, call: Call) -> pb.CancelResponse:
        """Ends a task that has not finished."""
        item = self._one(request, _removal, request_id=request.request_id)
        (outcome,) = await self._jobs.remove(request.topic, [item], call)
        return pb.CancelResponse(
            result=_cancel_result(outcome.unwrap()), receipt=wire.receipt(outcome.receipt)
        )

    async def batch_cancel(
        self, request: pb.BatchCancelRequest, call: Call
    ) -> pb.BatchCancelResponse:
        """Ends tasks that have not finished."""
        items = self._many(request, _removal, request_id=request.request_id)
        outcomes = await self._jobs.remove(request.topic, items, call)
        return pb.BatchCancelResponse(
            results=_results(pb.BatchCancelResult, outcomes, _cancel_result)
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
        limit = check.count(
            problems,
            request.page_size,
            "page_size",
            default=DEFAULTS.page_count,
            most=LIMITS.page_max_count,
        )
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

    def _one(self, request: Any, read: Callable[[Problems, Any], T], *, request_id: str = "") -> T:
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.request_id(problems, request_id, required=False)
        item = read(problems, request)
        problems.raise_if_any()
        return item

    def _many(
        self, request: Any, read: Callable[[Problems, Any], T], *, request_id: str = ""
    ) -> list[T]:
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.request_id(problems, request_id, required=False)
        items: list[T] = []
        check.batch(
            problems,
            request.items,
            "items",
            lambda item: items.append(read(problems, item)),
            lambda item: item.id,
        )
        problems.raise_if_any()
        return items


def view_is_full(problems: Problems, view: int) -> bool:
    """Whether a view has the payload."""
    if view not in task_pb2.TaskView.values():
        problems.add("view", f"is {view}, which this version does not know; known are 1, 2")
    return view == task_pb2.TASK_VIEW_FULL


def _headers_bytes(spec: task_pb2.TaskSpec) -> int:
    return sum(len(key.encode()) + len(value.encode()) for key, value in spec.headers.items())


def _digest(topic: str, spec: task_pb2.TaskSpec) -> bytes:
    """Over the content as it was sent: "in 5 s" sent twice is the same, whenever it is sent."""
    kind = spec.WhichOneof("schedule") or ""
    when = getattr(spec, kind).SerializeToString(deterministic=True) if kind else b""
    return content_digest(
        topic.encode(),
        spec.payload,
        pack_headers(spec.headers),
        kind.encode(),
        when,
        spec.retry_policy.SerializeToString(deterministic=True),
    )


def _settlement(problems: Problems, item: Any) -> Settlement:
    return Settlement(
        check.task_id(problems, item.id), check.lease_token(problems, item.lease_token)
    )


def _rejection(problems: Problems, item: Any) -> Rejection:
    settlement = _settlement(problems, item)
    verdict: pb.NackVerdict = item.verdict
    delay_ms = None
    with problems.within("verdict"):
        if verdict.HasField("delay"):
            delay_ms = check.duration_ms(
                problems, verdict.delay, "delay", least_ms=0, most_ms=LIMITS.delay_max_ms
            )
            if verdict.dead_letter:
                problems.add("delay", "does not go with dead_letter; leave one of them out")
    return Rejection(settlement.id, settlement.token, delay_ms, verdict.dead_letter, verdict.error)


def _postponement(problems: Problems, item: pb.SnoozeRequest | pb.BatchSnoozeItem) -> Postponement:
    settlement = _settlement(problems, item)
    least_ms = LIMITS.snooze_min_ms
    # Unset is 0 here, which is below the least: "as soon as possible" is what Release is for.
    delay_ms = check.duration_ms(
        problems, item.delay, "delay", least_ms=least_ms, most_ms=LIMITS.delay_max_ms
    )
    return Postponement(settlement.id, settlement.token, delay_ms)


def _removal(problems: Problems, item: Any) -> Removal:
    return Removal(check.task_id(problems, item.id), item.revoke_lease)


def _ack_result(changed: Changed) -> pb.AckResult:
    return pb.AckResult(revision=changed.revision)


def _release_result(changed: Changed) -> pb.ReleaseResult:
    return pb.ReleaseResult(revision=changed.revision)


def _nack_result(changed: Changed) -> pb.NackResult:
    result = pb.NackResult(state=wire.state(changed.state), revision=changed.revision)
    if changed.state is TaskState.SCHEDULED:
        result.due_time.CopyFrom(wire.timestamp(changed.at_ms))
    return result


def _snooze_result(changed: Changed) -> pb.SnoozeResult:
    return pb.SnoozeResult(revision=changed.revision, due_time=wire.timestamp(changed.at_ms))


def _extend_result(changed: Changed, receipt: Receipt | None) -> pb.ExtendResult:
    assert receipt is not None  # a value comes from a script
    return pb.ExtendResult(
        lease_expire_time=wire.timestamp(changed.at_ms),
        lease_remaining=wire.duration(changed.at_ms - receipt.store_ms),
        revision=changed.revision,
    )


def _cancel_result(removed: Any) -> pb.CancelResult:
    return pb.CancelResult(
        already_cancelled=removed.already,
        revision=removed.revision,
        incarnation=removed.incarnation,
    )


def _results(
    kind: Callable[..., R], outcomes: Sequence[Outcome[T]], result: Callable[[T], Message]
) -> list[R]:
    """One result an item, in order, each with its own status."""
    return [
        kind(
            status=to_status(outcome.error) if outcome.error else OK,
            result=result(outcome.value) if outcome.value is not None else None,
            receipt=wire.receipt(outcome.receipt),
        )
        for outcome in outcomes
    ]
