"""Reads a real shard's keys as a specification's Shard, and checks that they agree.

What is compared is everything: each field of each task, every index, counter and record. A check
names the promise that a disagreement would break.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import redis

from ddq.store.keys import ShardId
from models.operations import HELD, Configure, Policy, State
from models.queue import Shard, Task

_POLICY = struct.Struct(">IQQII")
_WIDE = struct.Struct(">BQQQ28s16sI")
_COMPACT_BYTES = 33
_WALK = struct.Struct(">QQBB")
_STATE = struct.Struct(">BBQQIIIQQB")
_VERDICTS = {0: "", 1: "acked", 2: "retried", 3: "dead", 4: "released", 5: "snoozed"}
_INDEXES = {
    State.SCHEDULED: "tasks",
    State.READY: "ready",
    State.LEASED: "leases",
    State.DEAD: "dead",
    State.SUCCEEDED: "finished",
    State.CANCELLED: "finished",
    State.PURGED: "finished",
}


class DisagreementError(AssertionError):
    """The keys of a shard do not agree with each other; names the promise that is broken."""


def _require(condition: bool, promise: str, summary: str) -> None:
    if not condition:
        raise DisagreementError(f"{promise}: {summary}")


def read_shard(client: redis.Redis, shard: ShardId) -> Shard:
    """The shard as the specification would hold it.

    Raises:
        DisagreementError: indexes, records and counters do not agree.
    """
    keys: dict[str, Any] = {}
    names: dict[str, set[bytes]] = {}
    pipe = client.pipeline(transaction=True)
    hashes = ("control", "payloads", "states", "requests")
    zsets = ("tasks", "ready", "leases", "dead", "finished", "request_expiry")
    for root in hashes:
        pipe.hgetall(shard.key(root))
    for root in zsets:
        pipe.zrange(shard.key(root), 0, -1, withscores=True)
    for root, value in zip(hashes + zsets, pipe.execute(), strict=True):
        pairs = value.items() if root in hashes else [(name, int(at)) for name, at in value]
        as_text = _record_name if root in {"requests", "request_expiry"} else _name
        keys[root] = {as_text(name): each for name, each in pairs}
        _require(
            len(keys[root]) == len(pairs),
            "G11 conservation",
            f"{root} has a task by two names: {[name for name, _ in pairs]}",
        )
        names[root] = {name for name, _ in pairs}
    # Scripts find a task in an index by the name that its records have.
    for root in zsets[:-1]:
        others = names[root] - names["payloads"] - names["states"]
        _require(not others, "G2 no loss", f"{root} has names that no record has: {others}")
    control = {name.decode(): value for name, value in keys["control"].items()}
    number = {
        name: int(value)
        for name, value in control.items()
        if name not in {"uid", "lineage", "nonce", "policies", "moving"}
        and not name.startswith("p:")
    }
    tasks = {}
    for task_id in sorted(keys["payloads"].keys() | keys["states"].keys()):
        task = _read_task(task_id, keys)
        tasks[task.id] = task
    _check_indexes(keys, tasks)
    counts = {name[2:]: value for name, value in number.items() if name.startswith("n:") and value}
    _check_counters(counts, tasks)
    _check_bytes(number, tasks, counts.pop("bytes", 0))
    return Shard(
        tasks=tasks,
        counts=counts,
        records=_read_records(keys),
        settings=Configure(
            bool(number["paused"]),
            number["max_tasks"],
            number["retention_ms"],
            number.get("max_bytes", 0),
        ),
        sequence=number.get("sequence", 0),
        mark_ms=number.get("mark_ms", 0),
        purge_watermark=number.get("purge_cut", 0),
        nonce=control.get("nonce", b""),
        epoch=number.get("epoch", 0),
        leader_until_ms=number.get("leader_until_ms", 0),
        leader_rank=number.get("leader_rank", 0),
        bytes_from=number.get("bytes_from", 0),
    )


def _name(raw: bytes) -> bytes:
    """An id in text, from either name of it."""
    if raw[:1] == b"\2" and len(raw) == 17:
        return str(uuid.UUID(bytes=raw[1:])).encode()
    return raw[1:] if raw[:1] == b"\1" else raw


def _record_name(field: bytes) -> bytes:
    """The name of a request record, with its id in text."""
    kind, size, rest = field.split(b":", 2)
    request_id, task_id = rest[: int(size)], rest[int(size) + 1 :]
    return b":".join((kind, size, request_id, _name(task_id)))


def _read_task(task_id: bytes, keys: dict[str, Any]) -> Task:
    record, state_record = keys["payloads"].get(task_id), keys["states"].get(task_id)
    name = task_id.decode()
    content, policy, created_ms = b"", Policy(), 0
    if record is not None:
        incarnation, created_ms, first_due_ms, policy, content = _read_payload(
            record, keys["control"].get(b"policies", b"")
        )
        if state_record is None:
            score = keys["tasks"].get(task_id)
            _require(score is not None, "G2 no loss", f"task {name} is in no index")
            return Task(
                name, content, policy, State.SCHEDULED, incarnation, incarnation, first_due_ms,
                score, created_ms,
            )  # fmt: skip
    (_, number, revision, incarnation, promotion, attempt, run, due_ms, _, verdict) = (
        _STATE.unpack_from(state_record)
    )
    texts, at = [], _STATE.size
    for size_format in (">B", ">B", ">B", ">B", ">H"):
        (size,) = struct.unpack_from(size_format, state_record, at)
        at += struct.calcsize(size_format)
        texts.append(state_record[at : at + size])
        at += size
    snoozes = int.from_bytes(state_record[at:], "big")
    token, settled, digest, cancelled_by, last_error = texts
    state = State(number)
    score = keys[_INDEXES[state]].get(task_id)
    _require(score is not None, "G2 no loss", f"task {name} is {state.name} but not in its index")
    held = state in HELD
    _require(held == (record is not None), "G2 no loss", f"payload of {name} in {state.name}")
    return Task(
        id=name,
        content=content if held else digest.rstrip(b"\0"),
        policy=policy,
        state=state,
        incarnation=incarnation,
        revision=revision,
        due_ms=due_ms,
        at_ms=score,
        created_ms=created_ms,
        promotion=promotion,
        attempt=attempt,
        run=run,
        token=token,
        settled=(settled, _VERDICTS[verdict]),
        cancelled_by=cancelled_by.decode(),
        last_error=last_error.decode(),
        snoozes=snoozes,
    )


def _read_payload(record: bytes, policies: bytes) -> tuple[int, int, int, Policy, bytes]:
    """Incarnation, times of enqueue and first due time, policy and content."""
    if record[0] < 128:
        _, incarnation, created_ms, due_ms, packed, _, size = _WIDE.unpack_from(record)
        return incarnation, created_ms, due_ms, _policy(packed), record[_WIDE.size + size :]
    created_ms, incarnation, wait_ms = (
        int.from_bytes(record[first:end], "big") for first, end in ((1, 6), (6, 11), (12, 17))
    )
    number, size, at = record[0] & 63, 0, _COMPACT_BYTES
    if number == 63:
        packed = record[at : at + _POLICY.size]
        at += _POLICY.size
    else:
        packed = policies[number * _POLICY.size :][: _POLICY.size]
    if record[0] & 64:
        size = int.from_bytes(record[at : at + 4], "big")
        at += 4
    return incarnation, created_ms, created_ms + wait_ms, _policy(packed), record[at + size :]


def _policy(packed: bytes) -> Policy:
    return Policy(*_POLICY.unpack(packed))


def _check_indexes(keys: dict[str, Any], tasks: dict[str, Task]) -> None:
    for root in ("tasks", "ready", "leases", "dead", "finished"):
        for member in keys[root]:
            task = tasks.get(member.decode())
            _require(
                task is not None and _INDEXES[task.state] == root,
                "G11 conservation",
                f"{root} holds {member!r}, which is {task.state.name if task else 'unknown'}",
            )
    _require(
        keys["requests"].keys() == keys["request_expiry"].keys(),
        "G13 idempotent",
        "request records and their expiries differ",
    )


def _check_counters(counts: dict[str, int], tasks: dict[str, Task]) -> None:
    for state in HELD:
        exact = sum(task.state == state for task in tasks.values())
        _require(
            counts.get(state.name.lower(), 0) == exact,
            "G11 conservation",
            f"{exact} tasks are {state.name}, the counter says {counts.get(state.name.lower(), 0)}",
        )
    ended = sum(counts.get(name, 0) for name in ("succeeded", "cancelled", "purged"))
    held = sum(task.state in HELD for task in tasks.values())
    _require(
        counts.get("enqueued", 0) == held + ended,
        "G11 conservation",
        f"{counts.get('enqueued', 0)} enqueued, {held} held, {ended} ended",
    )


def _check_bytes(number: dict[str, int], tasks: dict[str, Task], counted: int) -> None:
    """The counter of bytes, which is kept while there is a bound."""
    exact = sum(
        len(task.content)
        for task in tasks.values()
        if task.state in HELD and task.incarnation > number.get("bytes_from", 0)
    )
    _require(
        counted == exact or not number.get("max_bytes"),
        "G11 conservation",
        f"the tasks that count have {exact} bytes, the counter says {counted}",
    )


def _read_records(keys: dict[str, Any]) -> dict[tuple[str, str, str], tuple[Any, int]]:
    records = {}
    for field, value in keys["requests"].items():
        kind, size, rest = field.decode().split(":", 2)
        request_id, task_id = rest[: int(size)], rest[int(size) + 1 :]
        records[kind, request_id, task_id] = (
            _read_record(kind, value), keys["request_expiry"][field],
        )  # fmt: skip
    return records


def _read_record(kind: str, value: bytes) -> Any:
    if kind == "retrieve":
        leases, at = [], 0
        while at < len(value):
            (size,) = struct.unpack_from(">H", value, at)
            task_id, token = value[at + 2 : at + 2 + size], value[at + 2 + size : at + 18 + size]
            leases.append((_name(task_id).decode(), token))
            at += 18 + size
        return tuple(leases)
    if kind in {"redrive", "purge"}:
        cut, cut_ms, state, size = _WALK.unpack_from(value)
        score, last_id = value[_WALK.size : _WALK.size + size], value[_WALK.size + size :]
        after = (int(score), _name(last_id).decode()) if score else None
        return cut, cut_ms, state, after
    if kind == "redriven":
        return value.decode()
    return struct.unpack(f">{len(value) // 8}Q", value)


def as_kept(shard: Shard, content: Callable[[bytes], bytes]) -> Shard:
    """A specification's shard with what the store forgets of an ended task forgotten."""
    tasks = {
        task.id: task
        if task.state in HELD
        else replace(task, content=content(task.content), policy=Policy(), created_ms=0)
        for task in shard.tasks.values()
    }
    counts = {name: value for name, value in shard.counts.items() if value}
    return replace(shard, tasks=tasks, counts=counts)
