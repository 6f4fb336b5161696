"""JobStore: the one door to the store. Each method is one script, on one shard or on several.

Items of a batch are grouped by shard; the shards are asked at the same time, and what became of
each item comes back in the order of the request.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ddq.config import LIMITS, MS_PER_SECOND
from ddq.entropy import Entropy
from ddq.errors import DdqError, StoreMalformed, TopicNotFound
from ddq.metrics import Metrics, null_metrics
from ddq.store.batch import run_batch
from ddq.store.ids import pack_id, pack_ids, unpack_id
from ddq.store.job_values import (
    ENVELOPE_BYTES,
    ENVELOPES_MAX_BYTES,
    Changed,
    Continuation,
    Continued,
    Cursor,
    Enqueued,
    Extension,
    Leased,
    Postponement,
    Rejection,
    Removal,
    Removed,
    Settlement,
)
from ddq.store.keys import shard_of
from ddq.store.listing import list_page
from ddq.store.records import (
    lease_token,
    pack_content,
    pack_new_task,
    pack_policy,
    pack_topic_policy,
    unpack_task,
)
from ddq.store.refusals import refused
from ddq.store.runner import Call, text
from ddq.store.shard_scripts import ShardScripts
from ddq.store.topics import TopicRegistry
from ddq.task import (
    NO_OVERRIDES,
    STATES,
    NewTask,
    OnConflict,
    Outcome,
    Schedule,
    Task,
    TaskState,
    Topic,
)

log = logging.getLogger(__name__)


class Identified(Protocol):
    """An item of a batch."""

    @property
    def id(self) -> str:
        """The task's id."""


I = TypeVar("I", bound=Identified)  # noqa: E741 - an item of a batch
T = TypeVar("T")
Args = list[str | bytes | int]

_CONFLICT_MODES = {
    OnConflict.FAIL: "fail",
    OnConflict.RETURN_EXISTING: "existing",
    OnConflict.REPLACE_IF_SCHEDULED: "replace_scheduled",
    OnConflict.REPLACE_IF_FINISHED: "replace_finished",
    OnConflict.DEBOUNCE: "debounce",
}


class JobStore:
    """Tasks in Valkey or Redis.

    Args:
        topics: the registry.
        scripts: runs the scripts.
        entropy: of tokens and jitter.
        metrics: counts what is refused and how late deliveries are; None: nowhere.

    Attributes:
        snoozes_max_count: snoozes of one run.
    """

    def __init__(
        self,
        topics: TopicRegistry,
        scripts: ShardScripts,
        entropy: Entropy,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or null_metrics()
        self._topics = topics
        self._scripts = scripts
        self.snoozes_max_count = LIMITS.snoozes_max_count
        self._entropy = entropy

    # Producing -----------------------------------------------------------------------------

    async def enqueue(
        self, topic_name: str, tasks: Sequence[NewTask], call: Call
    ) -> list[Outcome[Enqueued]]:
        """Adds tasks; the topic is made by its first one.

        An error of a task has the metadata ``created_topic`` if this call made the topic: the error
        is about the task, and the topic is there.
        """
        outcomes = await self._enqueue(topic_name, tasks, call)
        again = [
            position
            for position, outcome in enumerate(outcomes)
            if isinstance(outcome.error, TopicNotFound)
        ]
        if again:
            # Another process deleted the topic since this one saw it: these make a new one. The
            # others are in the store, and would be answered as already there.
            try:
                retried = await self._enqueue(topic_name, [tasks[at] for at in again], call)
            except DdqError as error:
                if len(again) == len(tasks):
                    raise
                # What the first attempt did stays done, and its tasks are answered for.
                retried = [Outcome(error=error)] * len(again)
            for position, outcome in zip(again, retried, strict=True):
                outcomes[position] = outcome
        return outcomes

    async def _enqueue(
        self, topic_name: str, tasks: Sequence[NewTask], call: Call
    ) -> list[Outcome[Enqueued]]:
        topic, created = await self._topics.find_or_create(topic_name, call)

        def arguments(now: Topic, some: Sequence[NewTask]) -> Args:
            of_topic = now.settings.retry_policy
            packed_of_topic = pack_topic_policy(of_topic)
            args: Args = []
            for task_id, task in zip(pack_ids([task.id for task in some]), some, strict=True):
                overrides = task.retry_policy
                packed = (
                    packed_of_topic
                    if overrides is NO_OVERRIDES
                    else pack_policy(overrides.over(of_topic))
                )
                args += (
                    task_id,
                    "at" if task.schedule.absolute else "delay",
                    task.schedule.value_ms,
                    _CONFLICT_MODES[task.on_conflict],
                    "" if task.expected_revision is None else task.expected_revision,
                    task.debounce_limit_ms,
                    task.digest,
                    *pack_new_task(task, packed),
                )
            return args

        def read(task: NewTask, result: Any) -> Enqueued | DdqError:
            status, state, revision, incarnation, due_ms = result
            if status in (b"CREATED", b"EXISTS"):
                created = status == b"CREATED"
                return Enqueued(task.id, created, STATES[state], revision, incarnation, due_ms)
            return refused(topic, task.id, text(status), revision)

        outcomes = await self._batch(
            topic, "enqueue", tasks, [call.request_id], arguments, read, call
        )
        for outcome in outcomes if created else []:
            if outcome.error is not None:
                outcome.error.metadata["created_topic"] = topic.name
        return outcomes

    async def remove(
        self, topic_name: str, removals: Sequence[Removal], call: Call
    ) -> list[Outcome[Removed]]:
        """Cancels by id: the ID -> payload hash and one script."""
        topic = await self._topics.require(topic_name, call)

        def read(removal: Removal, result: Any) -> Removed | DdqError:
            status, revision, incarnation = result
            if status in (b"CANCELLED", b"ALREADY"):
                return Removed(status == b"ALREADY", revision, incarnation)
            return refused(topic, removal.id, text(status), revision)

        return await self._batch(
            topic,
            "remove",
            removals,
            [call.request_id],
            lambda _, some: [
                part for each in some for part in (pack_id(each.id), int(each.revoke))
            ],
            read,
            call,
        )

    async def reschedule(
        self,
        topic_name: str,
        task_id: str,
        schedule: Schedule,
        expected_revision: int | None,
        call: Call,
    ) -> Outcome[Changed]:
        """Gives a scheduled or ready task another due time."""
        topic = await self._topics.require(topic_name, call)
        expected = "" if expected_revision is None else expected_revision
        kind = "at" if schedule.absolute else "delay"
        reply = await self._scripts.run(
            topic,
            shard_of(task_id, topic.shards),
            "reschedule",
            [call.request_id, pack_id(task_id), kind, schedule.value_ms, expected],
            call,
        )
        status, revision, due_ms = reply.body[0]
        if status == b"OK":
            return Outcome(Changed(TaskState.SCHEDULED, revision, due_ms), None, reply.receipt)
        error = refused(topic, task_id, text(status), revision)
        return Outcome(None, error, reply.receipt)

    # Consuming -----------------------------------------------------------------------------

    async def retrieve(
        self,
        topic: Topic,
        index: int,
        *,
        max_tasks: int,
        max_bytes: int,
        lease_ms: int | None,
        call: Call,
        recall_only: bool = False,
        max_envelopes_bytes: int = ENVELOPES_MAX_BYTES,
        first_may_exceed: bool = True,
    ) -> tuple[list[Leased], bool, int]:
        """Leases ready tasks of one shard.

        Args:
            max_bytes: of their payloads and headers.
            max_envelopes_bytes: of all else that a reply carries of them; see envelope_bytes.
            first_may_exceed: lease one task even if it is larger than these bounds.
            lease_ms: None for the topic's default.
            recall_only: lease nothing, only answer a repeat.

        Returns:
            The leases, whether they answer a repeat, and how many tasks are still ready.
        """
        # In one piece: an argument for each task that may be leased costs more than the leases.
        size_bytes = LIMITS.lease_token_bytes * max_tasks
        tokens = b"" if recall_only else self._entropy.token(size_bytes)
        current = topic

        def arguments(now: Topic) -> Args:
            nonlocal current
            current = now
            return [
                call.request_id,
                int(recall_only),
                lease_ms or now.settings.lease_ms,
                max_bytes,
                ENVELOPE_BYTES,
                max_envelopes_bytes,
                int(first_may_exceed),
                tokens,
            ]

        reply = await self._scripts.run(topic, index, "retrieve", arguments, call)
        (status, ready, results), policies = reply.body
        leases: list[Leased] = []
        unreadable: list[Rejection] = []
        for raw_id, payload_record, state_record, expiry_ms in results:
            task_id, token = unpack_id(raw_id), lease_token(state_record)
            try:
                task = unpack_task(
                    topic.name,
                    task_id,
                    payload_record,
                    state_record,
                    lease_expiry_ms=expiry_ms,
                    policies=policies,
                )
            except StoreMalformed as error:
                log.error(  # noqa: TRY400 - no bug of ours
                    "task %(task)r of topic %(topic)r is dead: %(error)s",
                    {"task": task_id, "topic": topic.name, "error": error},
                )
                unreadable.append(Rejection(task_id, token, dead=True, error=error.message))
            else:
                max_run_ms = current.settings.max_run_ms
                leases.append(Leased(task, token, expiry_ms, reply.receipt, max_run_ms))
        if unreadable:
            # Dead, where an operator finds them: an error instead would cost their neighbours
            # an attempt each time. Should this fail, their leases expire.
            with contextlib.suppress(DdqError):
                await self.nack(topic.name, unreadable, call)
        if leases and status != b"REPEATED":
            late_ms = reply.store_ms - leases[0].task.due_ms
            self._metrics.delivery_lateness.observe(max(0, late_ms) / MS_PER_SECOND)
        return leases, status == b"REPEATED", ready

    async def ack(
        self, topic_name: str, items: Sequence[Settlement], call: Call
    ) -> list[Outcome[Changed]]:
        """Finishes leased tasks."""
        return await self._settle(topic_name, "ack", items, TaskState.SUCCEEDED, call)

    async def run_again(
        self, topic_name: str, item: Continuation, call: Call
    ) -> Outcome[Continued]:
        """Finishes a leased task and makes its next run, in one script."""
        topic = await self._topics.require(topic_name, call)

        def arguments(_: Topic, some: Sequence[Continuation]) -> Args:
            (item,) = some
            content = item.content
            return [
                pack_id(item.id),
                item.token,
                "at" if item.schedule.absolute else "delay",
                item.schedule.value_ms,
                b""
                if content is None
                else pack_content(content.digest, content.headers, content.payload),
            ]

        def read(item: Continuation, result: Any) -> Continued | DdqError:
            status, revision, incarnation, due_ms = result
            if status == b"OK":
                return Continued(incarnation, due_ms)
            return refused(topic, item.id, text(status), revision)

        (outcome,) = await self._batch(topic, "run_again", [item], [], arguments, read, call)
        return outcome

    async def release(
        self, topic_name: str, items: Sequence[Settlement], call: Call
    ) -> list[Outcome[Changed]]:
        """Hands leases back; their attempts do not count."""
        return await self._settle(topic_name, "release", items, TaskState.READY, call)

    async def extend(
        self, topic_name: str, items: Sequence[Extension], call: Call
    ) -> list[Outcome[Changed]]:
        """Prolongs leases."""
        return await self._change(
            topic_name,
            "extend",
            items,
            lambda now, some: [
                part
                for item in some
                for part in (pack_id(item.id), item.token, item.lease_ms or now.settings.lease_ms)
            ],
            lambda revision, expiry_ms: Changed(TaskState.LEASED, revision, expiry_ms),
            call,
        )

    async def nack(
        self, topic_name: str, items: Sequence[Rejection], call: Call
    ) -> list[Outcome[Changed]]:
        """Ends leased attempts without success."""

        def arguments(_: Topic, some: Sequence[Rejection]) -> Args:
            args: Args = []
            for item in some:
                delay_ms = -1 if item.delay_ms is None else item.delay_ms
                error = item.error.encode()[: LIMITS.error_max_bytes]
                random = repr(self._entropy.random())
                args += (pack_id(item.id), item.token, delay_ms, int(item.dead), error, random)
            return args

        def changed(state: int, revision: int, due_ms: int) -> Changed:
            scheduled = state == TaskState.SCHEDULED
            return Changed(STATES[state], revision, due_ms if scheduled else 0)

        return await self._change(
            topic_name, "nack", items, arguments, changed, call, revision_at=2
        )

    async def snooze(
        self, topic_name: str, items: Sequence[Postponement], call: Call
    ) -> list[Outcome[Changed]]:
        """Puts leased tasks off without counting their attempts."""
        return await self._change(
            topic_name,
            "snooze",
            items,
            lambda _, some: [
                part for item in some for part in (pack_id(item.id), item.token, item.delay_ms)
            ],
            lambda revision, due_ms: Changed(TaskState.SCHEDULED, revision, due_ms),
            call,
            head=[self.snoozes_max_count],
        )

    async def _settle(
        self,
        topic_name: str,
        script: str,
        items: Sequence[Settlement],
        state: TaskState,
        call: Call,
    ) -> list[Outcome[Changed]]:
        return await self._change(
            topic_name,
            script,
            items,
            lambda _, some: [
                part
                for task_id, item in zip(pack_ids([item.id for item in some]), some, strict=True)
                for part in (task_id, item.token)
            ],
            lambda revision: Changed(state, revision),
            call,
        )

    async def _change(
        self,
        topic_name: str,
        script: str,
        items: Sequence[I],
        arguments: Callable[[Topic, Sequence[I]], Args],
        changed: Callable[..., Changed],
        call: Call,
        *,
        head: Args | None = None,
        revision_at: int = 1,
    ) -> list[Outcome[Changed]]:
        """Runs a script that answers each item with a status and the task after its change.

        Args:
            changed: the change, from what follows OK in a result.
            revision_at: where a result has the revision.
        """
        topic = await self._topics.require(topic_name, call)

        def read(item: I, result: Any) -> Changed | DdqError:
            status, *values = result
            if status == b"OK":
                return changed(*values)
            return refused(topic, item.id, text(status), result[revision_at])

        return await self._batch(topic, script, items, head or [], arguments, read, call)

    # Looking -------------------------------------------------------------------------------

    async def get(self, topic_name: str, task_id: str, *, full: bool, call: Call) -> Outcome[Task]:
        """One task."""
        topic = await self._topics.require(topic_name, call)
        reply = await self._scripts.run(
            topic, shard_of(task_id, topic.shards), "get", [int(full), pack_id(task_id)], call
        )
        ((status, record, state, expiry_ms, size_bytes),), policies = reply.body
        if status != b"OK":
            return Outcome(None, refused(topic, task_id, text(status), 0), reply.receipt)
        task = unpack_task(
            topic.name,
            task_id,
            record,
            state,
            lease_expiry_ms=expiry_ms,
            record_size_bytes=size_bytes,
            policies=policies,
        )
        return Outcome(task, None, reply.receipt)

    async def list_tasks(
        self,
        topic_name: str,
        state: TaskState,
        *,
        full: bool,
        limit: int,
        cursor: Cursor,
        call: Call,
    ) -> tuple[list[Task], Cursor | None]:
        """One page of the tasks in one state, and where the next begins; None: there is none.

        A page ends before a shard that does not answer; one that would begin there is its error.
        """
        topic = await self._topics.require(topic_name, call)
        return await list_page(
            self._scripts, topic, state, full=full, limit=limit, cursor=cursor, call=call
        )

    # What all batches share ----------------------------------------------------------------

    async def _batch(
        self,
        topic: Topic,
        script: str,
        items: Sequence[I],
        head: Args,
        arguments: Callable[[Topic, Sequence[I]], Args],
        read: Callable[[I, Any], T | DdqError],
        call: Call,
    ) -> list[Outcome[T]]:
        """See run_batch."""
        outcomes = await run_batch(
            self._scripts,
            topic,
            script,
            items,
            lambda item: item.id,
            arguments,
            read,
            call,
            head=head,
        )
        for outcome in outcomes:
            # Without a receipt no script has answered: that is an error of the store.
            if outcome.error is not None and outcome.receipt is not None:
                self._metrics.items_refused.labels(outcome.error.reason).inc()
        return outcomes
