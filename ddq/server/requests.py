"""Requests of the queue service as values of the store; every field that is out of bounds is named.

A reader takes a Problems and a message, notes what is wrong, and returns a value that is used only
if nothing was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ddq.config import DEFAULTS, LIMITS
from ddq.entropy import Clock, Entropy, uuid7
from ddq.server import validation as check
from ddq.server.validation import Problems
from ddq.store.job_values import (
    Content,
    Continuation,
    Extension,
    Postponement,
    Rejection,
    Removal,
    Settlement,
)
from ddq.store.records import content_digest, pack_headers
from ddq.task import NewTask, OnConflict
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

T = TypeVar("T")
Read = Callable[[Problems, Any], T]

_CONDITIONAL = {OnConflict.REPLACE_IF_SCHEDULED, OnConflict.REPLACE_IF_FINISHED}
REPLACING = {*_CONDITIONAL, OnConflict.DEBOUNCE}
"""Forms that may end the task that holds the id: a repeat is known by its request_id."""


class TaskReader:
    """Reads tasks to be enqueued.

    Args:
        clock: for due times.
        entropy: for the ids of tasks that have none.
    """

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy

    def new_task(
        self, problems: Problems, topic: str, item: pb.EnqueueRequest | pb.BatchEnqueueItem
    ) -> NewTask:
        """A task of Enqueue or BatchEnqueue."""
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
        now_ms = self._clock.now_ms()
        with problems.within("task"):
            if spec.id:
                check.task_id(problems, spec.id)
            with problems.within("retry_policy"):
                policy = check.retry_policy(problems, spec.retry_policy)
            return NewTask(
                id=spec.id or uuid7(now_ms, self._entropy),
                payload=check.payload(problems, spec.payload),
                headers=check.headers(problems, spec.headers),
                schedule=check.schedule(problems, spec, now_ms),
                retry_policy=policy,
                digest=task_digest(topic, spec),
                on_conflict=mode,
                expected_revision=expected_revision,
                debounce_limit_ms=limit_ms,
            )

    def continuation(self, problems: Problems, request: pb.RunAgainRequest) -> Continuation:
        """An ack and the next run of its task."""
        settled = settlement(problems, request)
        content = None
        with problems.within("next"):
            schedule = check.schedule(problems, request.next, self._clock.now_ms())
            if request.next.HasField("content"):
                asked = request.next.content
                with problems.within("content"):
                    payload = check.payload(problems, asked.payload)
                    headers = check.headers(problems, asked.headers)
                digest = content_digest(request.topic.encode(), payload, pack_headers(headers))
                content = Content(payload, headers, digest)
        return Continuation(settled.id, settled.token, schedule, content)


def one(request: Any, read: Read[T]) -> T:
    """The item of a request for one task.

    Raises:
        InvalidArgument: with every field that is out of bounds.
    """
    problems = Problems()
    check.topic_name(problems, request.topic)
    check.request_id(problems, getattr(request, "request_id", ""), required=False)
    item = read(problems, request)
    problems.raise_if_any()
    return item


def many(request: Any, read: Read[T]) -> list[T]:
    """The items of a batch; see one."""
    problems = Problems()
    check.topic_name(problems, request.topic)
    check.request_id(problems, getattr(request, "request_id", ""), required=False)
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


def page_size(problems: Problems, request: Any) -> int:
    """The number of tasks on one page of a listing."""
    return check.count(
        problems,
        request.page_size,
        "page_size",
        default=DEFAULTS.page_count,
        most=LIMITS.page_max_count,
    )


def headers_bytes(spec: task_pb2.TaskSpec) -> int:
    """The size of a task's headers."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in spec.headers.items())


def task_digest(topic: str, spec: task_pb2.TaskSpec) -> bytes:
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


def lease_ms(
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


def settlement(problems: Problems, item: Any) -> Settlement:
    """A task and its lease token."""
    return Settlement(
        check.task_id(problems, item.id), check.lease_token(problems, item.lease_token)
    )


def extension(problems: Problems, item: pb.ExtendRequest | pb.BatchExtendItem) -> Extension:
    """A lease to be extended."""
    settled = settlement(problems, item)
    return Extension(settled.id, settled.token, lease_ms(problems, item))


def rejection(problems: Problems, item: Any) -> Rejection:
    """A nack."""
    settled = settlement(problems, item)
    verdict: pb.NackVerdict = item.verdict
    delay_ms = None
    with problems.within("verdict"):
        if verdict.HasField("delay"):
            delay_ms = check.duration_ms(
                problems, verdict.delay, "delay", least_ms=0, most_ms=LIMITS.delay_max_ms
            )
            if verdict.dead_letter:
                problems.add("delay", "does not go with dead_letter; leave one of them out")
    return Rejection(settled.id, settled.token, delay_ms, verdict.dead_letter, verdict.error)


def postponement(problems: Problems, item: pb.SnoozeRequest | pb.BatchSnoozeItem) -> Postponement:
    """A snooze."""
    settled = settlement(problems, item)
    least_ms = LIMITS.snooze_min_ms
    # Unset is 0 here, which is below the least: "as soon as possible" is what Release is for.
    delay_ms = check.duration_ms(
        problems, item.delay, "delay", least_ms=least_ms, most_ms=LIMITS.delay_max_ms
    )
    return Postponement(settled.id, settled.token, delay_ms)


def removal(problems: Problems, item: Any) -> Removal:
    """A cancel."""
    return Removal(check.task_id(problems, item.id), item.revoke_lease)
