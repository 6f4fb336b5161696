"""The real JobStore behind the specification's words: takes a Request, gives a Response.

Time and chance are the request's: the scripts read a key instead of the clock, and tokens and
jitter are handed out in the order in which the request names them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis

from ddq.config import Settings
from ddq.errors import DdqError
from ddq.store import job_values
from ddq.store.ids import pack_id
from ddq.store.keys import TOPICS_CONFIRMED, ShardId
from ddq.store.open import Store, open_store
from ddq.store.records import FORMAT, pack_topic_policy
from ddq.store.runner import Call
from ddq.store.scheduler_api import Leadership
from ddq.store.scripts import Script, load_scripts
from ddq.store.topology import StoreUrl, open_topology
from ddq.task import (
    NewTask,
    OnConflict,
    Outcome,
    RetryOverrides,
    Schedule,
    Task,
    TaskState,
    Topic,
    TopicSettings,
)
from models import operations as ops

T = TypeVar("T")

CLOCK_KEY = "test:clock_ms"
CLOCK_LUA = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK_KEY}')) end\n"
TOPIC = "t"
TOKEN_BYTES = 16
_FAR_S = 60.0

_STATUS = {
    "TASK_ID_CONFLICT": "CONFLICT",
    "TASK_READY": "READY",
    "TASK_LEASED": "LEASED",
    "TASK_FINISHED": "FINISHED",
    "TASK_NOT_FOUND": "NOT_FOUND",
    "TASK_NOT_DEAD": "NOT_DEAD",
    "REVISION_MISMATCH": "REVISION",
    "TOPIC_FULL": "FULL",
    "LEASE_LOST": "LEASE_LOST",
    "SNOOZE_LIMIT": "SNOOZED_OUT",
    "STORE_MALFORMED": "MALFORMED",
}
_MODES = {
    "fail": OnConflict.FAIL,
    "existing": OnConflict.RETURN_EXISTING,
    "replace_scheduled": OnConflict.REPLACE_IF_SCHEDULED,
    "replace_finished": OnConflict.REPLACE_IF_FINISHED,
    "debounce": OnConflict.DEBOUNCE,
}


class GivenEntropy:
    """Hands out the tokens and numbers that a request names, in its order."""

    def __init__(self) -> None:
        self.tokens: deque[bytes] = deque()
        self.numbers: deque[float] = deque()
        self._lineages = 0

    def token(self, size_bytes: int) -> bytes:
        """Named tokens; a lineage tag, which is shorter, is only counted."""
        count, rest = divmod(size_bytes, TOKEN_BYTES)
        if count and not rest and self.tokens:
            return b"".join(self.tokens.popleft() for _ in range(count))
        self._lineages += 1
        return self._lineages.to_bytes(size_bytes, "big")

    def random(self) -> float:
        """A named number."""
        return self.numbers.popleft() if self.numbers else 0.0


class GivenClock:
    """The caller's clock, as the request says."""

    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.ms


@dataclass(frozen=True)
class Failure:
    """A call that the store refused as a whole."""

    error: DdqError


class RealShard:
    """One topic of one shard on a real server.

    Args:
        socket: of the server, whose database is emptied.
        replace: other texts for some scripts, to plant a mistake.
    """

    def __init__(self, socket: str, replace: Mapping[str, str] | None = None) -> None:
        self.redis = redis.Redis(unix_socket_path=socket)
        self.redis.flushdb()
        self.runner = asyncio.Runner()
        self.entropy = GivenEntropy()
        self.clock = GivenClock()
        self.set_clock(1_000_000)
        self.clock.ms = 1_000_000
        self.scripts = scripts_with(replace)
        self.store: Store = open_store(
            open_topology(StoreUrl("unix", path=Path(socket))),
            Settings(max_request_age_ms=10_000, promote_batch_count=3, leader_lease_ms=5_000),
            scripts=self.scripts,
            clock=self.clock,
            entropy=self.entropy,
        )
        # As in a store that 0.2.0 wrote: what comes later is up to upgrade().
        self.redis.hset(TOPICS_CONFIRMED, "format", 1)
        self.id = ShardId(TOPIC, 0)
        self.topic: Topic = self.wait(self._create())

    async def _create(self) -> Topic:
        call = Call(asyncio.get_running_loop().time() + _FAR_S)
        topic, _ = await self.store.topics.create(TOPIC, 1, TopicSettings(), call)
        return topic

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs one coroutine to its end."""
        return self.runner.run(coroutine)

    def close(self) -> None:
        """Closes both connections."""
        self.wait(self.store.close())
        self.runner.close()
        self.redis.close()

    def set_clock(self, now_ms: int) -> None:
        """What the scripts take for the time from now on."""
        self.redis.set(CLOCK_KEY, now_ms)

    def upgrade(self, limit: int, now_ms: int) -> tuple[str, bool]:
        """One step of an upgrade: how it was answered, and whether it was the last one."""
        self.set_clock(now_ms)
        self.clock.ms = now_ms
        policy = pack_topic_policy(self.topic.settings.retry_policy)

        async def run() -> bool:
            call = Call(asyncio.get_running_loop().time() + _FAR_S)
            args: list[str | bytes | int] = [FORMAT, policy, limit]
            reply = await self.store.scripts.run(self.topic, 0, "upgrade", args, call)
            return bool(reply.body[0][0])

        try:
            return "OK", self.wait(run())
        except DdqError as error:
            return error.reason, False

    def ask(self, request: ops.Request, now_ms: int) -> ops.Response:
        """Runs a request at a moment."""
        self.set_clock(now_ms)
        self.clock.ms = request.caller_ms
        try:
            results, at_ms = self.wait(self._dispatch(request))
        except DdqError as error:
            return ops.Response(error.reason)
        return ops.Response("OK", at_ms, results)

    async def _dispatch(self, request: ops.Request) -> tuple[tuple[Any, ...], int]:
        call = Call(
            asyncio.get_running_loop().time() + _FAR_S, request.not_after_ms, request.request_id
        )
        kind = type(request.operations[0])
        handled: Handled = await _HANDLERS[kind](self, request.operations, call)
        return handled


def scripts_with(replace: Mapping[str, str] | None = None) -> dict[str, Script]:
    """The scripts with a clock that tests set, and what else is to be replaced."""
    return load_scripts({"clock": CLOCK_LUA, **(replace or {})})


# How each operation is asked of JobStore and what its outcome is called in the specification.
# A handler returns the results and the moment at which the script ran.

Handled = tuple[tuple[Any, ...], int]


def _status(error: DdqError) -> str:
    return _STATUS.get(error.reason, error.reason)


def _results(outcomes: Sequence[Outcome[Any]], describe: Any) -> Handled:
    """Each item's result; a refusal of the whole call is raised."""
    results, at_ms = [], 0
    for outcome in outcomes:
        if outcome.receipt is None:
            assert outcome.error is not None
            raise outcome.error
        at_ms = outcome.receipt.store_ms
        if outcome.error is not None:
            results.append((_status(outcome.error),))
        else:
            results.append(describe(outcome.value))
    return tuple(results), at_ms


def _schedule(when: ops.When) -> Schedule:
    return Schedule(when.value_ms, when.absolute)


def new_task(op: ops.Enqueue) -> NewTask:
    """A task for JobStore: its content is the payload, and the digest is made of it."""
    policy = op.policy
    return NewTask(
        id=op.id,
        payload=op.content,
        headers={},
        schedule=_schedule(op.when),
        retry_policy=RetryOverrides(
            policy.max_attempts,
            policy.initial_backoff_ms,
            policy.max_backoff_ms,
            policy.multiplier_milli / 1000,
            policy.jitter_milli / 1000,
        ),
        digest=op.content[:16].ljust(16, b"\0"),
        on_conflict=_MODES[op.on_conflict],
        expected_revision=op.expected_revision,
        debounce_limit_ms=op.limit_ms,
    )


async def _enqueue(real: RealShard, items: Sequence[ops.Enqueue], call: Call) -> Handled:
    outcomes = await real.store.jobs.enqueue(TOPIC, [new_task(item) for item in items], call)
    return _results(
        outcomes,
        lambda value: (
            "CREATED" if value.created else "EXISTS",
            ops.State(value.state),
            value.revision,
            value.incarnation,
            value.due_ms,
        ),
    )


async def _retrieve(real: RealShard, items: Sequence[ops.Retrieve], call: Call) -> Handled:
    (op,) = items
    real.entropy.tokens = deque(op.tokens)
    leases, repeated, ready = await real.store.jobs.retrieve(
        real.topic,
        0,
        max_tasks=len(op.tokens),
        max_bytes=min(op.max_bytes, 1 << 40),
        lease_ms=op.lease_ms,
        call=call,
        recall_only=op.recall_only,
    )
    real.entropy.tokens.clear()
    granted = tuple((lease.task.id, lease.token, lease.expiry_ms) for lease in leases)
    at_ms = leases[0].receipt.store_ms if leases else 0
    return (("REPEATED" if repeated else "LEASED", ready, granted),), at_ms


async def _ack(real: RealShard, items: Sequence[ops.Ack], call: Call) -> Handled:
    settlements = [job_values.Settlement(item.id, item.token) for item in items]
    outcomes = await real.store.jobs.ack(TOPIC, settlements, call)
    return _results(outcomes, lambda value: ("OK", value.revision))


async def _run_again(real: RealShard, items: Sequence[ops.RunAgain], call: Call) -> Handled:
    (op,) = items
    content = None
    if op.content is not None:
        content = job_values.Content(op.content, {}, op.content[:16].ljust(16, b"\0"))
    item = job_values.Continuation(op.id, op.token, _schedule(op.when), content)
    outcome = await real.store.jobs.run_again(TOPIC, item, call)
    return _results([outcome], lambda value: ("OK", value.incarnation, value.due_ms))


async def _release(real: RealShard, items: Sequence[ops.Release], call: Call) -> Handled:
    settlements = [job_values.Settlement(item.id, item.token) for item in items]
    outcomes = await real.store.jobs.release(TOPIC, settlements, call)
    return _results(outcomes, lambda value: ("OK", value.revision))


async def _snooze(real: RealShard, items: Sequence[ops.Snooze], call: Call) -> Handled:
    real.store.jobs.snoozes_max_count = items[0].limit
    postponed = [job_values.Postponement(item.id, item.token, item.delay_ms) for item in items]
    outcomes = await real.store.jobs.snooze(TOPIC, postponed, call)
    return _results(outcomes, lambda value: ("OK", value.revision, value.at_ms))


async def _extend(real: RealShard, items: Sequence[ops.Extend], call: Call) -> Handled:
    extensions = [job_values.Extension(item.id, item.token, item.lease_ms) for item in items]
    outcomes = await real.store.jobs.extend(TOPIC, extensions, call)
    return _results(outcomes, lambda value: ("OK", value.revision, value.at_ms))


async def _nack(real: RealShard, items: Sequence[ops.Nack], call: Call) -> Handled:
    real.entropy.numbers = deque(item.random for item in items)
    rejections = [
        job_values.Rejection(item.id, item.token, item.delay_ms, item.dead, item.error)
        for item in items
    ]
    outcomes = await real.store.jobs.nack(TOPIC, rejections, call)
    real.entropy.numbers.clear()
    return _results(
        outcomes, lambda value: ("OK", ops.State(value.state), value.revision, value.at_ms)
    )


async def _cancel(real: RealShard, items: Sequence[ops.Cancel], call: Call) -> Handled:
    removals = [job_values.Removal(item.id, item.revoke) for item in items]
    outcomes = await real.store.jobs.remove(TOPIC, removals, call)
    return _results(
        outcomes,
        lambda value: (
            "ALREADY" if value.already else "CANCELLED", value.revision, value.incarnation,
        ),
    )  # fmt: skip


async def _reschedule(real: RealShard, items: Sequence[ops.Reschedule], call: Call) -> Handled:
    (op,) = items
    outcome = await real.store.jobs.reschedule(
        TOPIC, op.id, _schedule(op.when), op.expected_revision, call
    )
    return _results([outcome], lambda value: ("OK", value.revision, value.at_ms))


def _view(task: Task) -> tuple[Any, ...]:
    return (
        task.id, ops.State(task.state), task.revision, task.incarnation, task.promotion,
        task.attempt, task.run, task.due_ms, task.last_error,
    )  # fmt: skip


async def _get(real: RealShard, items: Sequence[ops.Get], call: Call) -> Handled:
    (op,) = items
    outcome = await real.store.jobs.get(TOPIC, op.id, full=True, call=call)
    return _results([outcome], lambda value: ("OK", _view(value)))


async def _list(real: RealShard, items: Sequence[ops.List], call: Call) -> Handled:
    """JobStore reads on until the page is full, so only what it lists is compared."""
    (op,) = items
    cursor = job_values.Cursor()
    if op.after is not None:
        cursor = job_values.Cursor(0, str(op.after[0]), op.after[1].encode())
    tasks, _ = await real.store.jobs.list_tasks(
        TOPIC, TaskState(op.state), full=False, limit=op.limit, cursor=cursor, call=call
    )
    return (("OK", tuple(_view(task) for task in tasks)),), 0


async def _redrive(real: RealShard, items: Sequence[ops.Redrive], call: Call) -> Handled:
    """One step of the script: JobStore's own loop would run several."""
    (op,) = items
    reply = await real.store.scripts.run(
        real.topic, 0, "redrive", [call.request_id, op.limit, *map(pack_id, op.ids)], call
    )
    redriven, done, statuses = reply.body[0]
    return ((redriven, done, tuple(status.decode() for status in statuses)),), reply.store_ms


async def _delete_dead(real: RealShard, items: Sequence[ops.DeleteDead], call: Call) -> Handled:
    (op,) = items
    try:
        revision, receipt = await real.store.operator_api.delete_dead(
            real.topic, op.id, op.expected_revision, call
        )
    except DdqError as error:
        if error.reason in _STATUS and error.metadata:
            return ((_status(error),),), 0
        raise
    return (("OK", revision),), receipt.store_ms


async def _purge(real: RealShard, items: Sequence[ops.Purge], call: Call) -> Handled:
    """One step of the script, as above."""
    (op,) = items
    reply = await real.store.scripts.run(real.topic, 0, "purge", [call.request_id, op.limit], call)
    purged, done = reply.body[0]
    return ((purged, done),), reply.store_ms


async def _configure(real: RealShard, items: Sequence[ops.Configure], call: Call) -> Handled:
    (op,) = items
    reply = await real.store.topics._runner.run(
        real.topic,
        real.id,
        "configure",
        [
            int(op.paused),
            0,
            op.max_tasks,
            op.retention_ms,
            1,
            1_000,
            FORMAT,
            pack_topic_policy(real.topic.settings.retry_policy),
            op.max_bytes,
        ],
        call,
    )
    return (("OK",),), reply.store_ms


async def _survey(real: RealShard, items: Sequence[ops.Survey], call: Call) -> Handled:
    survey = await real.store.scheduler_api.survey(real.topic, real.id, call)
    counts = {name: value for name, value in survey.counts.items() if value}
    return (("OK", counts),), survey.receipt.store_ms


async def _acquire(real: RealShard, items: Sequence[ops.Acquire], call: Call) -> Handled:
    (op,) = items
    real.entropy.tokens = deque([op.nonce])
    held = Leadership(op.held_nonce, op.held_epoch) if op.held_nonce else None
    acquired = await real.store.scheduler_api.acquire(
        real.topic, real.id, held, call, rank=op.rank, challenge=op.challenge
    )
    leadership = acquired.leadership
    if leadership is None:
        status = "TAKEN"
    else:
        status = "KEPT" if held and leadership.nonce == held.nonce else "ACQUIRED"
    return ((status, acquired.remaining_ms),), acquired.next_wake_up.store_ms


async def _resign(real: RealShard, items: Sequence[ops.Resign], call: Call) -> Handled:
    (op,) = items
    held = Leadership(op.nonce, op.epoch)
    resigned = await real.store.scheduler_api.resign(real.topic, real.id, held, call)
    return (("RESIGNED" if resigned else "NOT_LEADER",),), 0


async def _promote(real: RealShard, items: Sequence[ops.Promote], call: Call) -> Handled:
    (op,) = items
    held = Leadership(op.nonce, op.epoch)
    moved = await real.store.scheduler_api.promote(real.topic, real.id, held, call)
    status = "NOT_LEADER" if moved.deposed else "OK"
    return ((status, moved.count, moved.late_ms),), moved.next_wake_up.store_ms


async def _reap(real: RealShard, items: Sequence[ops.Reap], call: Call) -> Handled:
    (op,) = items
    real.entropy.numbers = deque(op.randoms)
    held = Leadership(op.nonce, op.epoch)
    moved = await real.store.scheduler_api.reap(real.topic, real.id, held, call)
    real.entropy.numbers.clear()
    return (("NOT_LEADER" if moved.deposed else "OK", moved.count),), moved.next_wake_up.store_ms


async def _collect(real: RealShard, items: Sequence[ops.Collect], call: Call) -> Handled:
    collected, next_wake_up = await real.store.scheduler_api.collect(real.topic, real.id, call)
    return ((collected,),), next_wake_up.store_ms


_HANDLERS: dict[type, Any] = {
    ops.Enqueue: _enqueue, ops.Retrieve: _retrieve, ops.Ack: _ack, ops.RunAgain: _run_again,
    ops.Nack: _nack,
    ops.Extend: _extend, ops.Release: _release, ops.Snooze: _snooze, ops.Cancel: _cancel,
    ops.Reschedule: _reschedule, ops.Get: _get, ops.List: _list, ops.Redrive: _redrive,
    ops.DeleteDead: _delete_dead, ops.Purge: _purge, ops.Configure: _configure,
    ops.Survey: _survey, ops.Acquire: _acquire, ops.Resign: _resign, ops.Promote: _promote,
    ops.Reap: _reap, ops.Collect: _collect,
}  # fmt: skip


def comparable(request: ops.Request, response: ops.Response) -> ops.Response:
    """The specification's answer with what JobStore does not pass on left out."""
    refusal = {"CLOCK_UNSAFE", "REQUEST_EXPIRED"}
    if response.status in refusal:
        return response
    results = []
    for op, result in zip(request.operations, response.results, strict=True):
        results.append(_comparable(op, result))
    moment = response.now_ms
    if _moment_is_hidden(request, response):
        moment = 0
    return ops.Response(response.status, moment, tuple(results))


def _moment_is_hidden(request: ops.Request, response: ops.Response) -> bool:
    op, result = request.operations[0], response.results[0]
    if isinstance(op, ops.Retrieve):
        return not result[2]
    if isinstance(op, ops.DeleteDead):
        return result[0] != "OK"
    return isinstance(op, ops.List | ops.Resign)


def _comparable(op: ops.Operation, result: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(op, ops.List):
        return ("OK", result[3])
    if isinstance(op, ops.Acquire):
        return (result[0], result[2])
    if isinstance(op, ops.Collect):
        return (sum(result),)
    if isinstance(op, ops.Enqueue) and result[0] not in {"CREATED", "EXISTS"}:
        return ("CONFLICT" if result[0] == "SCHEDULED" else result[0],)
    if isinstance(op, ops.Cancel):
        return result if result[0] in {"CANCELLED", "ALREADY"} else result[:1]
    if isinstance(op, ops.Nack) and result[0] == "OK" and result[1] != ops.State.SCHEDULED:
        return (*result[:3], 0)
    plain = ops.Redrive | ops.Purge | ops.Retrieve | ops.Configure | ops.Survey | ops.Resign
    if isinstance(op, plain | ops.Promote | ops.Reap):
        return result
    return result if result[0] == "OK" or isinstance(op, ops.Enqueue) else result[:1]
