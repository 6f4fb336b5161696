"""G11 by recounting: what the indexes and records hold against what the counters say.

Reads everything, with commands of its own and a decoder of its own: it must not trust what it
checks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import redis

from ddq.store.keys import ShardId

STATES = {
    1: "scheduled",
    2: "ready",
    3: "leased",
    4: "succeeded",
    5: "dead",
    6: "cancelled",
    7: "purged",
}
INDEXES = {
    "tasks": {"scheduled"},
    "ready": {"ready"},
    "leases": {"leased"},
    "dead": {"dead"},
    "finished": {"succeeded", "cancelled", "purged"},
}
HELD = ("scheduled", "ready", "leased", "dead")
ENDED = ("succeeded", "cancelled", "purged")


@dataclass(frozen=True)
class Recount:
    """What one shard holds, found by reading all of it."""

    counters: dict[str, int]
    by_state: dict[str, set[bytes]]
    problems: list[str]


def recount(client: redis.Redis, shard: ShardId) -> Recount:
    """Reads a shard and compares everything with everything."""
    problems: list[str] = []
    control: dict[bytes, bytes] = _read(client.hgetall(shard.key("control")))
    counters = {
        name.decode()[2:]: int(value) for name, value in control.items() if name.startswith(b"n:")
    }
    payloads: dict[bytes, bytes] = _read(client.hgetall(shard.key("payloads")))
    states: dict[bytes, bytes] = _read(client.hgetall(shard.key("states")))
    by_state: dict[str, set[bytes]] = {name: set() for name in STATES.values()}
    for task_id in payloads.keys() | states.keys():
        state = STATES[states[task_id][1]] if task_id in states else "scheduled"
        by_state[state].add(task_id)
        if (state in HELD) != (task_id in payloads):
            problems.append(f"{task_id!r} is {state}, payload: {task_id in payloads}")
        if state in HELD and task_id in states:
            (incarnation,) = struct.unpack_from(">Q", states[task_id], 10)
            written = incarnation_of(payloads.get(task_id, bytes(9)))
            if incarnation != written:
                problems.append(f"{task_id!r} has two incarnations: {incarnation}, {written}")
    for root, names in INDEXES.items():
        indexed: set[bytes] = set(_read(client.zrange(shard.key(root), 0, -1)))
        expected = set().union(*(by_state[name] for name in names))
        if indexed != expected:
            problems.append(
                f"{root}: only in the index {indexed - expected}, only in the records "
                f"{expected - indexed}"
            )
    problems += [
        f"{name}: {len(by_state[name])} held, the counter says {counters.get(name, 0)}"
        for name in HELD
        if counters.get(name, 0) != len(by_state[name])
    ]
    problems += [
        f"{name}: {len(by_state[name])} remembered, the counter says {counters.get(name, 0)}"
        for name in ENDED
        if counters.get(name, 0) < len(by_state[name])
    ]
    total = sum(counters.get(name, 0) for name in (*HELD, *ENDED, "set_aside"))
    if total != counters.get("enqueued", 0):
        problems.append(f"enqueued {counters.get('enqueued', 0)}, but {total} in all states")
    problems += [
        f"{member!r} in request_expiry is not in requests"
        for member in _read(client.zrange(shard.key("request_expiry"), 0, -1))
        if not client.hexists(shard.key("requests"), member)
    ]
    if client.hlen(shard.key("requests")) != client.zcard(shard.key("request_expiry")):
        problems.append("a record in requests has no entry in request_expiry")
    return Recount(counters, by_state, problems)


def incarnation_of(record: bytes) -> int:
    """The incarnation in a payload record of either form."""
    if record[0] < 128:
        return int.from_bytes(record[1:9], "big")
    return int.from_bytes(record[6:11], "big") + ((record[11] & 15) << 40)


def assert_conserved(client: redis.Redis, topic: str, shards: int = 1) -> None:
    """Fails with everything that does not add up on any shard of a topic."""
    problems = []
    for index in range(shards):
        shard = ShardId(topic, index)
        problems += [f"{shard.tag} {text}" for text in recount(client, shard).problems]
    assert not problems, "\n".join(problems)


def assert_all_conserved(client: redis.Redis) -> None:
    """The same for every shard in the store, of topics that exist and of those that do not."""
    for key in _read(client.keys("ddq:control:{*}")):
        shard = ShardId.parse(key.decode().removeprefix("ddq:control:"))
        assert shard is not None
        problems = recount(client, shard).problems
        assert not problems, f"{shard.tag}: " + "\n".join(problems)


def _read(value: Any) -> Any:
    """redis-py gives one type for its blocking and its awaitable client."""
    return value


__all__ = ["Recount", "assert_all_conserved", "assert_conserved", "recount"]
