"""From a simulation's requests and replies to a history that the checkers of `make chaos` judge.

Pure conversions: the requests that clients made, the journal of the surviving shard, and what that
shard holds after the drain become the values of chaos/history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from chaos.history import operations as kept
from chaos.history.journal import Entry, Journal
from chaos.history.notes import RunNote
from chaos.history.reader import FOREVER_NS, History, Note, Op
from chaos.history.run_folder import Final, FinalTopic
from ddq.errors import DdqError
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from models.operations import HELD, State
from models.queue import Shard, Task

MS = 1_000_000


@dataclass
class Exchange:
    """A request and its reply, as the client saw them.

    Attributes:
        index, end: numbers of the two events in the history; ``end`` is -1 while, or if, there is
            no reply.
        begin_ns, end_ns: virtual time of both.
    """

    client: str
    op: str
    request: Any
    index: int
    begin_ns: int
    end: int = -1
    end_ns: int = FOREVER_NS
    reply: Any = None
    error: DdqError | None = None

    @property
    def ok(self) -> bool:
        """The reply is a success."""
        return self.reply is not None

    @property
    def unknown(self) -> bool:
        """The request may or may not have had an effect."""
        return not self.ok and (self.error is None or not self.error.definite)


@dataclass
class Exchanges:
    """All exchanges of a simulation, and the notes beside them, in the order of one clock.

    Args:
        clock_s: the simulation's virtual time.
    """

    clock_s: Callable[[], float]
    made: list[Exchange] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _events: int = 0
    _now_ns: int = 0

    def _next(self) -> tuple[int, int]:
        """Number and time of the next event; no two events have the same time."""
        self._events += 1
        self._now_ns = max(self._now_ns + 1, round(self.clock_s() * 1e9))
        return self._events, self._now_ns

    def begin(self, client: str, op: str, request: Any) -> Exchange:
        """A client sends a request."""
        exchange = Exchange(client, op, request, *self._next())
        self.made.append(exchange)
        return exchange

    def complete(self, exchange: Exchange) -> None:
        """Its reply, or its error, is there."""
        exchange.end, exchange.end_ns = self._next()

    def note(self, process: str, op: str, value: kept.Value) -> None:
        """An event that is not an operation, such as a fault."""
        index, now_ns = self._next()
        self.notes.append(Note(index, now_ns, process, op, value))

    def history(self, run: RunNote) -> History:
        """All of it, as the checkers read it."""
        return History(
            [_op(exchange) for exchange in self.made],
            [Note(0, 0, "harness", "run", run), *self.notes],
            [],
            self._events,
            self._now_ns,
        )


def _op(exchange: Exchange) -> Op:
    name, request_of, reply_of = _CONVERSIONS[exchange.op]
    op = Op(
        exchange.index, exchange.end, exchange.client, name, "info", exchange.begin_ns, FOREVER_NS,
        exchange.end_ns, request_of(exchange.request),
    )  # fmt: skip
    if exchange.ok:
        op.outcome, op.reply = "ok", reply_of(exchange.request, exchange.reply)
    elif exchange.error is not None:
        op.error = exchange.error.reason
        if exchange.error.definite or name in kept.READS:
            op.outcome = "fail"
    if op.outcome != "info":
        op.end_ns = exchange.end_ns
    return op


# Requests ----------------------------------------------------------------------------------


def _when(message: Any) -> tuple[int | None, int | None]:
    """Delay and due time, in ms; at most one of them is set."""
    if message.HasField("delay"):
        return message.delay.ToMilliseconds(), None
    if message.HasField("due_time"):
        return None, message.due_time.ToMilliseconds()
    return None, None


def _policy(message: task_pb2.RetryPolicy) -> kept.RetrySettings:
    return kept.RetrySettings(
        message.max_attempts if message.HasField("max_attempts") else None,
        _span_ms(message, "initial_backoff"),
        _span_ms(message, "max_backoff"),
        message.multiplier if message.HasField("multiplier") else None,
        message.jitter if message.HasField("jitter") else None,
    )


_ON_CONFLICT: Mapping[int, kept.OnConflict] = {
    pb.ON_CONFLICT_UNSPECIFIED: "fail",
    pb.ON_CONFLICT_FAIL: "fail",
    pb.ON_CONFLICT_RETURN_EXISTING: "existing",
    pb.ON_CONFLICT_REPLACE_IF_SCHEDULED: "replace_scheduled",
    pb.ON_CONFLICT_REPLACE_IF_FINISHED: "replace_finished",
    pb.ON_CONFLICT_DEBOUNCE: "debounce",
}


def _enqueue(request: pb.EnqueueRequest) -> kept.Enqueue:
    task = request.task
    return kept.Enqueue(
        request.topic,
        task.id,
        kept.digest(task.payload),
        *_when(task),
        _ON_CONFLICT[request.on_conflict],
        request.expected_revision if request.HasField("expected_revision") else None,
        _policy(task.retry_policy) if task.HasField("retry_policy") else None,
        _span_ms(request, "debounce_limit"),
    )


def _span_ms(message: Any, name: str) -> int | None:
    return getattr(message, name).ToMilliseconds() if message.HasField(name) else None


def _retrieve(request: pb.RetrieveRequest) -> kept.Retrieve:
    return kept.Retrieve(
        list(request.topics),
        request.request_id,
        request.max_tasks or 1,
        _span_ms(request, "lease_duration"),
        request.wait.ToMilliseconds(),
    )


def _lease_proof(request: Any) -> tuple[str, str, str]:
    return request.topic, request.id, request.lease_token.hex()


def _run_again(request: pb.RunAgainRequest) -> kept.RunAgain:
    following = request.next
    payload = kept.digest(following.content.payload) if following.HasField("content") else None
    return kept.RunAgain(*_lease_proof(request), *_when(following), payload)


def _nack(request: pb.NackRequest) -> kept.Nack:
    verdict = request.verdict
    return kept.Nack(*_lease_proof(request), _span_ms(verdict, "delay"), verdict.dead_letter)


# Replies -----------------------------------------------------------------------------------


def _stamp(revision: int, receipt: task_pb2.Receipt) -> dict[str, Any]:
    return {
        "revision": revision,
        "store_ms": receipt.store_time.ToMilliseconds(),
        "lineage": receipt.lineage_id.hex(),
    }


def _state(number: int) -> kept.State:
    return cast("kept.State", State(number).name.lower())


def _enqueued(_: Any, reply: pb.EnqueueResponse) -> kept.Enqueued:
    result = reply.result
    return kept.Enqueued(
        **_stamp(result.revision, reply.receipt),
        created=result.created,
        state=_state(result.state),
        incarnation=result.incarnation,
        due_ms=result.due_time.ToMilliseconds(),
    )


def _retrieved(request: pb.RetrieveRequest, reply: pb.RetrieveResponse) -> kept.Retrieved:
    return kept.Retrieved([_lease(request.topics[0], leased) for leased in reply.tasks])


def _lease(topic: str, leased: pb.LeasedTask) -> kept.Lease:
    task = leased.task
    return kept.Lease(
        **_stamp(task.revision, leased.receipt),
        topic=task.topic or topic,
        id=task.id,
        token=leased.lease_token.hex(),
        payload=kept.digest(task.payload),
        incarnation=task.incarnation,
        promotion=task.promotion,
        attempt=task.attempt,
        run=task.run,
        due_ms=task.due_time.ToMilliseconds(),
        expire_ms=leased.lease_expire_time.ToMilliseconds(),
        policy=_policy(task.retry_policy) if task.HasField("retry_policy") else None,
    )


def _settled(_: Any, reply: Any) -> kept.Settled:
    return kept.Settled(**_stamp(reply.result.revision, reply.receipt))


def _ran_again(_: Any, reply: pb.RunAgainResponse) -> kept.RanAgain:
    result = reply.result
    return kept.RanAgain(
        **_stamp(result.revision, reply.receipt),
        incarnation=result.incarnation,
        due_ms=result.due_time.ToMilliseconds(),
    )


def _nacked(_: Any, reply: pb.NackResponse) -> kept.Nacked:
    result = reply.result
    return kept.Nacked(
        **_stamp(result.revision, reply.receipt),
        state=_state(result.state),
        due_ms=_span_ms(result, "due_time") or 0,
    )


def _snoozed(_: Any, reply: pb.SnoozeResponse) -> kept.Snoozed:
    result = reply.result
    return kept.Snoozed(
        **_stamp(result.revision, reply.receipt), due_ms=result.due_time.ToMilliseconds()
    )


def _extended(_: Any, reply: pb.ExtendResponse) -> kept.Extended:
    result = reply.result
    return kept.Extended(
        **_stamp(result.revision, reply.receipt),
        expire_ms=result.lease_expire_time.ToMilliseconds(),
    )


def _cancelled(_: Any, reply: pb.CancelResponse) -> kept.Cancelled:
    result = reply.result
    return kept.Cancelled(
        **_stamp(result.revision, reply.receipt),
        incarnation=result.incarnation,
        already=result.already_cancelled,
    )


def _rescheduled(_: Any, reply: pb.RescheduleResponse) -> kept.Rescheduled:
    return kept.Rescheduled(
        **_stamp(reply.revision, reply.receipt), due_ms=reply.due_time.ToMilliseconds()
    )


def _seen(_: Any, reply: pb.GetTaskResponse) -> kept.Seen:
    task = reply.task
    return kept.Seen(
        revision=task.revision,
        state=_state(task.state),
        payload=kept.digest(task.payload) if task.payload else None,
        incarnation=task.incarnation,
        promotion=task.promotion,
        attempt=task.attempt,
        run=task.run,
        due_ms=task.due_time.ToMilliseconds(),
        expire_ms=task.lease_expire_time.ToMilliseconds(),
    )


_CONVERSIONS: Mapping[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "Enqueue": ("enqueue", _enqueue, _enqueued),
    "Retrieve": ("retrieve", _retrieve, _retrieved),
    "Ack": ("ack", lambda request: kept.Settle(*_lease_proof(request)), _settled),
    "RunAgain": ("run_again", _run_again, _ran_again),
    "Nack": ("nack", _nack, _nacked),
    "Release": ("release", lambda request: kept.Settle(*_lease_proof(request)), _settled),
    "Snooze": (
        "snooze",
        lambda request: kept.Snooze(*_lease_proof(request), request.delay.ToMilliseconds()),
        _snoozed,
    ),
    "Extend": (
        "extend",
        lambda request: kept.Extend(*_lease_proof(request), _span_ms(request, "lease_duration")),
        _extended,
    ),
    "Cancel": (
        "cancel",
        lambda request: kept.Cancel(request.topic, request.id, request.revoke_lease),
        _cancelled,
    ),
    "Reschedule": (
        "reschedule",
        lambda request: kept.Reschedule(
            request.topic, request.id, *_when(request),
            request.expected_revision if request.HasField("expected_revision") else None,
        ),
        _rescheduled,
    ),
    "GetTask": ("get", lambda request: kept.Get(request.topic, request.id), _seen),
}  # fmt: skip
"""RPC → the operation of a history, how its request is kept, and how its reply is."""


# The surviving shard -----------------------------------------------------------------------

_TEXTS = frozenset({b"owner", b"op", b"id", b"from", b"to"})


def journal_of(topic: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> Journal:
    """The stream of a shard, as XRANGE returns it, as a journal."""
    return Journal([_entry(topic, fields) for _, fields in entries], [])


def _entry(topic: str, fields: Mapping[bytes, bytes]) -> Entry:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        text = {b"from": "before", b"to": "after"}.get(name, name.decode())
        if name == b"lineage":
            values[text] = value.hex()
        else:
            values[text] = value.decode() if name in _TEXTS else int(value)
    return Entry(topic=topic, **values)


def final_of(topic: str, shard: Shard, *, drained: bool) -> Final:
    """What a shard counts and holds."""
    counts = kept.Counts(
        **{name: shard.counts.get(name, 0) for name in kept.Counts.__struct_fields__}
    )
    held: dict[kept.State, dict[str, int]] = {}
    for task in shard.tasks.values():
        if task.state in HELD:
            held.setdefault(_state(task.state), {})[task.id] = task.incarnation
    return Final({topic: FinalTopic([counts], held, [0])}, drained)


def reads_of(topic: str, shard: Shard, ids: Sequence[str], history: History) -> list[Op]:
    """A read of each task behind the end of the history, as a client would have made it.

    A task that the shard does not have is not found.
    """
    return [
        _read(topic, task_id, shard.tasks.get(task_id), history.events + 2 * number, history.end_ns)
        for number, task_id in enumerate(ids, 1)
    ]


def _read(topic: str, task_id: str, task: Task | None, index: int, end_ns: int) -> Op:
    op = Op(
        index - 1, index, "final reader", "get", "fail", end_ns + index - 1, end_ns + index,
        end_ns + index, kept.Get(topic, task_id),
    )  # fmt: skip
    if task is None:
        op.error = "TASK_NOT_FOUND"
        return op
    op.outcome = "ok"
    op.reply = kept.Seen(
        revision=task.revision, state=_state(task.state), incarnation=task.incarnation,
        promotion=task.promotion, attempt=task.attempt, run=task.run, due_ms=task.due_ms,
    )  # fmt: skip
    return op
