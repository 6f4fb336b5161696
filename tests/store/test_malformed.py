"""Records that were damaged by hand: a clear error, or quarantined and counted.

They never block a shard: all other tasks continue and none that was acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ddq.errors import DdqError, StoreMalformed
from ddq.store.job_values import Leased, Removal, Settlement
from ddq.store.keys import ROOTS, TOPICS
from ddq.task import OnConflict, TaskState
from tests.support.conservation import recount
from tests.support.queue import Queue, call, error_of, errors, new_task

STATES = ("scheduled", "retry", "ready", "leased", "dead", "done")
HEALTHY = [f"{state}{i}" for state in STATES for i in range(3)]


async def fill(queue: Queue) -> None:
    """Three healthy tasks in every state, and one of each to be damaged."""
    names = {state: [f"{state}{i}" for i in range(3)] + [f"bad-{state}"] for state in STATES}
    await queue.add_dead(*names["dead"])
    for task_id in names["done"]:
        await queue.ack(await queue.add_leased(task_id, payload=task_id.encode()))
    for task_id in names["retry"]:
        lease = await queue.add_leased(task_id, payload=task_id.encode())
        await queue.nack(lease, delay_ms=1_000, error="once")
    for task_id in names["leased"]:
        await queue.add_leased(task_id, payload=task_id.encode())
    for task_id in names["ready"]:
        await queue.add(task_id, task_id.encode(), headers={"key": "value"})
    await queue.promote()
    for task_id in names["scheduled"]:
        await queue.add(task_id, task_id.encode(), delay_ms=500, headers={"key": "value"})


async def drain(queue: Queue) -> dict[str, bytes]:
    """Everything that can still be delivered, acked: id -> payload."""
    delivered: dict[str, bytes] = {}
    await queue.redrive_all("drain")
    for _ in range(12):
        queue.clock.advance(600_000)
        await queue.reap()
        await queue.promote()
        leases: list[Leased] = []
        while batch := await queue.retrieve(5):
            leases += batch
            assert len(leases) < 200, "the same tasks come again and again"
        for lease in leases:
            # A made-up id is not known under the name that it is shown by.
            settled = await queue.store.jobs.ack(
                queue.name, [Settlement(lease.task.id, lease.token)], call()
            )
            if errors(settled) == ["OK"]:
                delivered[lease.task.id] = lease.task.payload or b""
    return delivered


async def assert_flows(queue: Queue) -> None:
    """All healthy tasks, and a new one, are delivered with their bytes; all operations work."""
    await queue.add("new", b"new")
    for state in TaskState:
        await queue.list_ids(state, page=2)
    delivered = await drain(queue)
    for task_id in ("new", *HEALTHY):
        if task_id.startswith("done"):
            assert await queue.state(task_id) is TaskState.SUCCEEDED
            continue
        payload = b"payload" if task_id.startswith("dead") else task_id.encode()
        assert delivered.get(task_id) == payload, f"{task_id} was lost"
    while await queue.collect():
        pass
    await queue.survey()
    # A damaged task is purged too, with all the others.
    assert (await queue.purge("all of it")).done


def held(queue: Queue) -> dict[str, int]:
    return (recount(queue.server.sync, queue.shard)).counters


# Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("kind", ["string", "list", "set", "other"])
async def test_a_key_of_the_wrong_type_is_named_and_nothing_is_written(
    damaged_queue: Queue, root: str, kind: str
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await fill(queue)
    key = queue.key(root)
    saved = client.dump(key)
    client.delete(key)
    if kind == "string":
        client.set(key, "by hand")
    elif kind == "list":
        client.rpush(key, "by hand")
    elif kind == "set":
        client.sadd(key, "by hand")
    elif root in {"tasks", "ready", "leases", "dead", "finished", "request_expiry"}:
        client.hset(key, "by", "hand")
    else:
        client.zadd(key, {"by hand": 1})
    before = {other: client.dump(queue.key(other)) for other in ROOTS}
    topic = await queue.topic()
    operations: list[Callable[[], Any]] = [
        lambda: queue.add("x"),
        lambda: queue.cancel("scheduled0"),
        lambda: queue.get("scheduled0"),
        queue.retrieve,
        queue.survey,
        lambda: queue.purge("p"),
        lambda: queue.redrive_all("r"),
        queue.collect,
        queue.lead,
        lambda: queue.list_ids(TaskState.SCHEDULED),
        lambda: queue.store.shard_settings.configure(topic, queue.shard, call()),
    ]
    for operation in operations:
        error = await error_of(operation())
        assert isinstance(error, StoreMalformed)
        assert key in error.message
    assert before == {other: client.dump(queue.key(other)) for other in ROOTS}
    other_topic = Queue(queue.controlled_store, "healthy")
    await other_topic.create()
    await other_topic.ack(await other_topic.add_leased("a"))
    # The remedy that the message names.
    client.delete(key)
    if saved is not None:
        client.restore(key, 0, saved)
    await assert_flows(queue)


# Control -----------------------------------------------------------------------------------

NUMBERS = (
    "format", "shards", "settings_revision", "paused", "deleting", "max_tasks", "retention_ms",
    "journal", "journal_max", "sequence", "mark_ms", "purge_cut", "epoch", "leader_until_ms",
    "erased", "n:enqueued", "n:ready", "n:stray",
)  # fmt: skip


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "nan", "inf", "1e300", "9007199254740993"])
async def test_a_control_field_that_is_no_number_is_named(
    damaged_queue: Queue, field: str, value: str
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await queue.add("a")
    saved = client.hget(queue.key("control"), field)
    client.hset(queue.key("control"), field, value)
    for operation in (queue.survey, lambda: queue.add("b")):
        error = await error_of(operation())
        assert isinstance(error, StoreMalformed)
        assert queue.key("control") in error.message
        assert field in error.message
    if saved is None:
        client.hdel(queue.key("control"), field)
    else:
        client.hset(queue.key("control"), field, saved)
    await queue.ack(await queue.lease("a"))


# Indexes -----------------------------------------------------------------------------------

SCORES = ("-inf", "-1", "0", "1.5", "1e15", "+inf")
MEMBERS = (b"junk", b"", b"\xff\xfe\x00", b"x" * 300, "é".encode(), b"a:b", b"OK")


@pytest.mark.parametrize("root", ["tasks", "ready", "leases", "dead", "finished", "request_expiry"])
@pytest.mark.parametrize("score", SCORES)
async def test_entries_without_a_task_are_removed_and_counted(
    damaged_queue: Queue, root: str, score: str
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await fill(queue)
    for member in MEMBERS:
        queue.server.read("ZADD", queue.key(root), score, member)
    await assert_flows(queue)
    left = [member for member in MEMBERS if client.zscore(queue.key(root), member) is not None]
    if root == "request_expiry" or (root == "finished" and score in {"1e15", "+inf"}):
        return
    assert left == []
    counts = (await queue.survey()).counts
    assert counts["stray"] == len(MEMBERS)
    assert counts["set_aside"] == 0


@pytest.mark.parametrize("root", ["tasks", "ready", "leases", "dead", "finished"])
async def test_an_entry_in_the_wrong_index_does_not_move_its_task(
    damaged_queue: Queue, root: str
) -> None:
    queue = damaged_queue
    await fill(queue)
    home = {"tasks": ("scheduled", "retry"), "ready": ("ready",), "leases": ("leased",),
            "dead": ("dead",), "finished": ("done",)}[root]  # fmt: skip
    for state in STATES:
        if state not in home:
            queue.server.read("ZADD", queue.key(root), 0, f"{state}0")
    await assert_flows(queue)
    problems = recount(queue.server.sync, queue.shard).problems
    assert problems == []


# Records -----------------------------------------------------------------------------------


def truncated(record: bytes) -> list[bytes]:
    return [record[:size] for size in (0, 1, 10, 40, 46, 47, 60, 72, 73, len(record) - 1)]


def garbage(record: bytes) -> list[bytes]:
    return [
        b"\xff" * len(record),
        b"\x00" * len(record),
        b"\x02" + record[1:],
        record[:1] + b"\xff" * 200,
        b"by hand",
    ]


@pytest.mark.parametrize("root", ["payloads", "states"])
@pytest.mark.parametrize("state", STATES)
async def test_a_record_that_cannot_be_read_harms_only_its_own_task(
    damaged_queue: Queue, root: str, state: str
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    record = b"\x01" * 120
    count = len(truncated(record) + garbage(record))
    for number in range(count):
        client.flushall()
        queue.leadership = None
        queue.store.topics._known.clear()
        queue.forget_confirmed()
        queue.clock.set(1_800_000_000_000)
        await queue.create()
        await fill(queue)
        written = client.hget(queue.key(root), f"bad-{state}") or record
        assert isinstance(written, bytes)
        damaged = (truncated(written) + garbage(written))[number]
        client.hset(queue.key(root), f"bad-{state}", damaged)
        outcomes = await queue.store.jobs.remove(
            queue.name, [Removal("unknown"), Removal(f"bad-{state}", revoke=True)], call()
        )
        assert errors(outcomes)[0] == "TASK_NOT_FOUND"
        await assert_flows(queue)


async def test_an_unreadable_state_makes_the_task_dead_with_its_payload(
    damaged_queue: Queue,
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await queue.add("a", b"precious")
    await queue.promote()
    client.hset(queue.key("states"), "a", b"\xff\xff")
    assert await queue.retrieve() == []
    task = await queue.get("a")
    assert (task.state, task.payload) == (TaskState.DEAD, b"precious")
    assert "could not be read" in task.last_error
    await queue.redrive("a")
    assert (await queue.lease("a")).task.payload == b"precious"
    assert recount(client, queue.shard).problems == []


async def test_an_unreadable_payload_is_set_aside_and_its_records_stay(
    damaged_queue: Queue,
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await queue.add("a")
    await queue.add("b", delay_ms=1)
    queue.clock.advance(1)
    await queue.promote()
    client.hset(queue.key("payloads"), "a", b"\xffremains")
    assert [lease.task.id for lease in await queue.retrieve()] == ["b"]
    counts = (await queue.survey()).counts
    assert (counts["set_aside"], counts["ready"], counts["leased"]) == (1, 0, 1)
    assert client.hget(queue.key("payloads"), "a") == b"\xffremains"
    assert counts["enqueued"] == counts["leased"] + counts["set_aside"]


async def test_headers_that_cannot_be_read_cost_no_other_task_an_attempt(
    damaged_queue: Queue,
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    for task_id in ("a", "bad", "c"):
        await queue.add(task_id, headers={"key": "value"})
    await queue.promote()
    record = client.hget(queue.key("payloads"), "bad")
    assert isinstance(record, bytes)
    client.hset(queue.key("payloads"), "bad", record.replace(b"value", b"\xff\xfe\xfd\xfc\xfb"))
    leases = await queue.retrieve()
    assert [lease.task.id for lease in leases] == ["a", "c"]
    for lease in leases:
        await queue.ack(lease)
    # It is where an operator looks, and an error for who asks for it by name.
    assert (await queue.survey()).counts["dead"] == 1
    assert isinstance(await error_of(queue.get("bad")), StoreMalformed)
    assert await queue.list_ids(TaskState.DEAD) == []
    await queue.delete_dead("bad")
    assert recount(client, queue.shard).problems == []


# Tasks that no client enqueued --------------------------------------------------------------


async def test_a_copied_record_does_not_wedge_the_shard_by_its_counters(
    damaged_queue: Queue,
) -> None:
    """A readable record that no counter knows: whatever becomes of it, nothing goes below 0."""
    queue, client = damaged_queue, damaged_queue.server.sync
    await queue.add("a")
    record = client.hget(queue.key("payloads"), "a")
    assert isinstance(record, bytes)
    await queue.ack(await queue.lease("a"))
    client.hset(queue.key("payloads"), "ghost", record)
    await queue.cancel("ghost")
    assert (await queue.add("b")).created
    await queue.ack(await queue.lease("b"))
    client.hset(queue.key("payloads"), "ghost2", record)
    queue.server.read("ZADD", queue.key("tasks"), 0, "ghost2")
    await queue.promote()
    assert (await queue.add("c")).created


async def test_an_id_that_is_not_text_is_shown_escaped_and_harms_no_other_task(
    damaged_queue: Queue,
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await fill(queue)
    record = client.hget(queue.key("payloads"), "scheduled0")
    assert isinstance(record, bytes)
    for number, raw_id in enumerate((b"\xff\xfe", b"\x00", b"")):
        client.hset(queue.key("payloads"), raw_id, record)
        queue.server.read("ZADD", queue.key("tasks"), number, raw_id)
    assert "\\xff\\xfe" in await queue.list_ids(TaskState.SCHEDULED)
    await assert_flows(queue)


# Requests ----------------------------------------------------------------------------------


async def message_of(awaitable: Any) -> str:
    error = await error_of(awaitable)
    assert isinstance(error, StoreMalformed)
    return error.message


REQUEST_GARBAGE = (b"", b"x", b"\xff" * 16, b"\xff" * 17, b"\xff" * 24, b"1e999", b"nan", b"-5")


@pytest.mark.parametrize("value", REQUEST_GARBAGE)
async def test_a_request_record_that_cannot_be_read_stops_only_its_repeat(
    damaged_queue: Queue, value: bytes
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    await fill(queue)
    requests = queue.key("requests")

    def spoil(kind: str, task_id: str = "") -> None:
        client.hset(requests, f"{kind}:1:r:{task_id}", value)
        client.zadd(queue.key("request_expiry"), {f"{kind}:1:r:{task_id}": 1e15})

    for kind, task_id in (
        ("replace", "scheduled1"), ("cancel", "scheduled1"), ("reschedule", "scheduled1"),
        ("retrieve", ""), ("purge", ""), ("redrive", ""), ("redriven", "dead0"),
    ):  # fmt: skip
        spoil(kind, task_id)
    before = recount(client, queue.shard).counters

    replacement: dict[str, Any] = {
        "on_conflict": OnConflict.REPLACE_IF_SCHEDULED,
        "delay_ms": 1_000,
    }
    outcomes: Any = await queue.store.jobs.enqueue(
        queue.name,
        [new_task("fresh", **replacement), new_task("scheduled1", **replacement)],
        call("r"),
    )
    assert errors(outcomes)[0] == "OK"
    assert errors(outcomes)[1] in {"OK", "STORE_MALFORMED"}
    outcomes = await queue.store.jobs.remove(
        queue.name, [Removal("fresh"), Removal("scheduled1")], call("r")
    )
    assert errors(outcomes)[0] == "OK"
    assert errors(outcomes)[1] in {"OK", "STORE_MALFORMED"}
    assert "scheduled1" in await message_of(queue.reschedule("scheduled1", 500, request_id="r"))
    assert requests in await message_of(queue.purge("r"))
    assert requests in await message_of(queue.redrive_all("r"))
    await queue.retrieve(request_id="r")
    after = recount(client, queue.shard).counters
    assert after["enqueued"] >= before["enqueued"] + 1, "the counters moved with the tasks"
    problems = recount(client, queue.shard).problems
    assert problems == []


# The registry ------------------------------------------------------------------------------

RECORDS = (
    b"",
    b"short",
    b"\x00" * 24,
    b"\x00" * 24 + b"not json",
    b"\x00" * 24 + b"\xff\xfe",
    b"\x00" * 24 + b"[]",
    b"\x00" * 24 + b"{}",
    b"\x00" * 24 + b'{"shards":"x","settings":{}}',
    b"\x00" * 24 + b"[" * 100_000,
)


@pytest.mark.parametrize("record", RECORDS)
async def test_a_record_of_a_topic_that_cannot_be_read_is_named_and_left_out(
    damaged_queue: Queue, record: bytes
) -> None:
    queue, client = damaged_queue, damaged_queue.server.sync
    client.hset(TOPICS, "broken", record)
    client.hset(TOPICS, b"\xff\xfe", record)
    topics, malformed = await queue.store.directory.load_all(call())
    assert [topic.name for topic in topics] == [queue.name]
    assert len(malformed) == 2
    assert "broken" in " ".join(error.message for error in malformed)
    if record:
        error = await error_of(Queue(queue.controlled_store, "broken").add("a"))
        assert isinstance(error, StoreMalformed)
        assert "broken" in error.message
    await queue.ack(await queue.add_leased("a"))


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "inf", "nan"])
async def test_a_broken_number_of_topics_is_named(damaged_queue: Queue, value: str) -> None:
    queue = damaged_queue
    queue.server.sync.hset(TOPICS, "#", value)
    error = await error_of(Queue(queue.controlled_store, "other").create())
    assert isinstance(error, StoreMalformed)
    assert TOPICS in error.message
    # Who knows its topic already works on.
    await queue.add("a")


async def test_a_registry_of_another_type_is_named(damaged_queue: Queue) -> None:
    queue = damaged_queue
    queue.server.sync.delete(TOPICS)
    queue.server.sync.set(TOPICS, "by hand")
    error = await error_of(Queue(queue.controlled_store, "other").create())
    assert isinstance(error, StoreMalformed)
    assert TOPICS in error.message


# Everything at once ------------------------------------------------------------------------


def mutate(record: bytes, rng: random.Random) -> bytes:
    """A record with one kind of damage."""
    data = bytearray(record)
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        del data[rng.randrange(len(data)) :]
    elif kind == 2:
        data += rng.randbytes(rng.randint(1, 50))
    elif kind == 3:
        at = rng.randrange(len(data))
        data[at : at + 8] = struct.pack(">Q", rng.choice([0, 1, 2**53, 2**63, 2**64 - 1]))
    else:
        data = bytearray(rng.randbytes(len(data)))
    return bytes(data)


@pytest.mark.parametrize("seed", range(40))
async def test_damaged_records_never_reach_their_neighbours(
    damaged_queue: Queue, seed: int
) -> None:
    queue, client, rng = damaged_queue, damaged_queue.server.sync, random.Random(seed)
    await fill(queue)
    for state in STATES:
        for root in rng.choice([("payloads",), ("states",), ("payloads", "states")]):
            record = client.hget(queue.key(root), f"bad-{state}")
            if isinstance(record, bytes):
                client.hset(queue.key(root), f"bad-{state}", mutate(record, rng))
    operations: list[Callable[[str], Any]] = [
        lambda i: queue.cancel(i, revoke=True),
        lambda i: queue.reschedule(i, 0, request_id=f"reschedule {i}"),
        lambda i: queue.redrive(i, request_id="one"),
        lambda i: queue.add(i, b"other"),
        queue.delete_dead,
        queue.get,
    ]
    for task_id in (f"bad-{state}" for state in STATES):
        for operation in rng.sample(operations, 2):
            with contextlib.suppress(DdqError):
                await operation(task_id)
    await assert_flows(queue)
