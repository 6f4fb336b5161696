"""Payload records of both forms: what is enqueued is read back, and a task keeps its own policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ddq.store.keys import TOPICS, TOPICS_CONFIRMED
from ddq.store.records import FORMAT, pack_topic_policy
from ddq.task import RetryPolicy, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of
from tests.support.store import StoreServer

POLICY = RetryPolicy(max_attempts=7, initial_backoff_ms=50, max_backoff_ms=90, jitter=0)
WIDE_BYTES, COMPACT_BYTES, POLICY_BYTES, LENGTH_BYTES = 73, 33, 28, 4
OWN_POLICY = 63


@pytest.fixture(params=[1, FORMAT])
def store_format(request: pytest.FixtureRequest, store_server: StoreServer) -> int:
    """The format that new shards of the store get."""
    store_server.sync.hset(TOPICS_CONFIRMED, "format", request.param)
    assert isinstance(request.param, int)
    return request.param


def record_of(queue: Queue, task_id: str) -> bytes:
    """The payload record as it is kept."""
    record = queue.server.read("HGET", queue.key("payloads"), task_id)
    assert isinstance(record, bytes)
    return record


def policies_of(queue: Queue) -> bytes:
    """The shard's table of policies."""
    return queue.server.read("HGET", queue.key("control"), "policies") or b""


async def set_policy(queue: Queue, policy: RetryPolicy) -> None:
    """Gives the topic another retry policy."""
    topic = await queue.topic()
    changed = replace(topic, settings=replace(topic.settings, retry_policy=policy))
    await queue.store.topics.update(topic, changed, call())


@pytest.mark.parametrize("headers", [{}, {"k": "v", "kk": "w" * 300}])
@pytest.mark.parametrize("retry", [{}, {"max_attempts": 3, "jitter": 0.5}])
@pytest.mark.parametrize("payload", [b"", b"\0\xff" * 99])
async def test_a_task_is_read_back_in_either_format(
    store_format: int,
    open_store_here: OpenStoreHere,
    headers: dict[str, str],
    retry: dict[str, Any],
    payload: bytes,
) -> None:
    queue = Queue(open_store_here())
    await queue.create(retry_policy=POLICY)
    await queue.add("a", payload, headers=headers, delay_ms=5, **retry)
    now_ms = queue.clock.store_ms
    policy = replace(POLICY, **retry)
    task = await queue.get("a")
    assert (task.payload, dict(task.headers), task.retry_policy) == (payload, headers, policy)
    assert (task.created_ms, task.due_ms) == (now_ms, now_ms + 5)
    brief = await queue.get("a", full=False)
    assert (brief.payload or b"", brief.headers) == (b"", task.headers)
    assert brief.payload_size_bytes == len(payload)
    queue.clock.advance(5)
    leased = (await queue.lease()).task
    assert (leased.payload, leased.headers, leased.retry_policy) == (payload, headers, policy)
    expected = WIDE_BYTES if store_format == 1 else COMPACT_BYTES
    if store_format > 1:
        expected += POLICY_BYTES * bool(retry) + LENGTH_BYTES * bool(headers)
    assert record_of(queue, "a").endswith(payload)
    assert task.payload_size_bytes == len(payload)
    packed_bytes = sum(4 + len(key) + len(value) for key, value in headers.items())
    assert len(record_of(queue, "a")) == expected + packed_bytes + len(payload)


@pytest.mark.parametrize("replaces", [False, True])
async def test_the_next_run_has_policy_and_content_in_either_format(
    store_format: int, open_store_here: OpenStoreHere, replaces: bool
) -> None:
    queue = Queue(open_store_here())
    await queue.create(retry_policy=POLICY)
    await queue.add("plain", b"1")
    await queue.add("own", b"2", headers={"k": "v"}, max_attempts=3)
    await queue.promote()
    for lease in await queue.retrieve():
        if replaces:
            await queue.run_again(lease, payload=b"next", headers={"n": "x"})
        else:
            await queue.run_again(lease)
    for task_id, attempts, payload, headers in (
        ("plain", 7, b"1", {}),
        ("own", 3, b"2", {"k": "v"}),
    ):
        task = await queue.get(task_id)
        assert task.retry_policy is not None
        assert (task.state, task.retry_policy.max_attempts) == (TaskState.SCHEDULED, attempts)
        expected = (b"next", {"n": "x"}) if replaces else (payload, headers)
        assert (task.payload, dict(task.headers)) == expected
    assert_all_conserved(queue.server.sync)


async def test_a_task_keeps_its_policy_when_that_of_its_topic_changes(queue: Queue) -> None:
    await set_policy(queue, POLICY)
    await queue.add("old")
    await set_policy(queue, replace(POLICY, max_attempts=1))
    await queue.add("new")
    await set_policy(queue, POLICY)
    await queue.add("again")
    assert len(record_of(queue, "old")) == COMPACT_BYTES + len(b"payload")
    assert record_of(queue, "old")[0] == record_of(queue, "again")[0] != record_of(queue, "new")[0]
    attempts = {"old": 7, "new": 1, "again": 7}
    for task_id, count in attempts.items():
        policy = (await queue.get(task_id)).retry_policy
        assert policy is not None
        assert policy.max_attempts == count
    await queue.promote()
    states = {lease.task.id: (await queue.nack(lease)).state for lease in await queue.retrieve()}
    assert states == {
        "old": TaskState.SCHEDULED,
        "new": TaskState.DEAD,
        "again": TaskState.SCHEDULED,
    }


async def test_a_policy_beyond_the_table_is_kept_in_the_record(queue: Queue) -> None:
    for attempts in range(1, 2 * OWN_POLICY):
        await set_policy(queue, replace(POLICY, max_attempts=attempts))
    full = OWN_POLICY * POLICY_BYTES
    assert len(policies_of(queue)) == full
    await queue.add("a")
    record = record_of(queue, "a")
    assert record[0] & OWN_POLICY == OWN_POLICY
    assert len(record) == COMPACT_BYTES + POLICY_BYTES + len(b"payload")
    policy = (await queue.get("a")).retry_policy
    assert policy == replace(POLICY, max_attempts=2 * OWN_POLICY - 1)


async def test_numbers_too_large_for_the_compact_form_are_kept_exactly(queue: Queue) -> None:
    # Just below and at what 40 and 44 bits hold.
    sequences = {"small": 0, "low": 2**40 - 3, "high": 2**44 - 3, "next": 2**44 - 2}
    forms, incarnations = {}, {}
    for task_id, sequence in sequences.items():
        if sequence:
            queue.server.sync.hset(queue.key("control"), "sequence", sequence)
        incarnations[task_id] = (await queue.add(task_id, delay_ms=2**40 - 1)).incarnation
        forms[task_id] = record_of(queue, task_id)[0]
    assert forms == {"small": 128, "low": 128, "high": 128, "next": 1}
    assert [incarnations[name] for name in ("low", "high", "next")] == [
        2**40 - 1, 2**44 - 1, 2**44,
    ]  # fmt: skip
    due_ms = queue.clock.store_ms + 2**40 - 1
    for task_id, incarnation in incarnations.items():
        task = await queue.get(task_id)
        assert (task.incarnation, task.due_ms) == (incarnation, due_ms)
        assert (await queue.reschedule(task_id, 5, expected=task.revision)).revision > incarnation


@pytest.mark.parametrize(
    ("now_ms", "delay_ms", "form"),
    [
        (2**40 - 1, 1, 128),
        (2**40, 0, 128),
        (2**44 - 1, 2**40 - 1, 128),
        (2**44 - 1, 2**40, 1),
        (2**44, 0, 1),
    ],
)
async def test_times_too_large_for_the_compact_form_are_kept_exactly(
    store_server: StoreServer, open_store_here: OpenStoreHere, now_ms: int, delay_ms: int, form: int
) -> None:
    queue = Queue(open_store_here())
    queue.clock.set(now_ms)
    await queue.create()
    await queue.add("a", delay_ms=delay_ms)
    task = await queue.get("a")
    assert (task.created_ms, task.due_ms) == (now_ms, now_ms + delay_ms)
    assert record_of(queue, "a")[0] == form


async def test_a_record_whose_policy_is_not_in_the_table_is_malformed(queue: Queue) -> None:
    await queue.add("a")
    assert policies_of(queue) == pack_topic_policy((await queue.topic()).settings.retry_policy)
    policies, control = policies_of(queue), queue.key("control")
    queue.server.sync.hset(control, "policies", policies[:-1])
    assert (await error_of(queue.get("a"))).reason == "STORE_MALFORMED"
    queue.server.sync.hset(control, "policies", policies)
    assert (await queue.get("a")).payload == b"payload"


# The format of a store --------------------------------------------------------------------


def format_of(queue: Queue) -> bytes | None:
    """The format of the topic's first shard."""
    found: bytes | None = queue.server.read("HGET", queue.key("control"), "format")
    return found


async def test_a_store_that_never_had_a_topic_has_the_latest_format(queue: Queue) -> None:
    assert format_of(queue) == str(FORMAT).encode()
    assert queue.server.sync.hget(TOPICS_CONFIRMED, "format") == str(FORMAT).encode()


async def test_an_older_store_keeps_its_format_until_an_operator_upgrades_it(
    store_server: StoreServer, open_store_here: OpenStoreHere
) -> None:
    # It has had a topic, and nothing says its format: as 0.2.0 left it.
    store_server.sync.hset(TOPICS, "#", 1)
    controlled = open_store_here()
    queue = Queue(controlled)
    await queue.create(retry_policy=POLICY)
    await queue.add("old", b"1")
    assert (format_of(queue), record_of(queue, "old")[0]) == (b"1", 1)
    await queue.store.recovery_api.upgrade(call())
    assert queue.store.topics.store_format == FORMAT
    other = Queue(controlled, "other")
    await other.create()
    assert format_of(other) == str(FORMAT).encode()
    # A shard that is there follows with the next step of a scheduler, and no sooner.
    await queue.add("between", b"2")
    assert (format_of(queue), record_of(queue, "between")[0]) == (b"1", 1)
    assert (await queue.survey()).format == 1
    while not await queue.upgrade():
        pass
    assert (await queue.survey()).format == FORMAT
    await queue.add("new", b"3")
    assert record_of(queue, "new")[0] >= 128
    for task_id, payload in (("old", b"1"), ("between", b"2"), ("new", b"3")):
        task = await queue.get(task_id)
        assert (task.payload, task.retry_policy) == (payload, POLICY)


async def test_a_shard_never_goes_back_to_an_earlier_format(queue: Queue) -> None:
    queue.server.sync.hset(TOPICS_CONFIRMED, "format", 1)
    await queue.store.topics.load(queue.name, call())
    assert queue.store.topics.store_format == 1
    await queue.store.shard_settings.configure_all(await queue.topic(), call())
    assert await queue.upgrade()
    assert format_of(queue) == str(FORMAT).encode()
    # Nor does the next life of its topic.
    await queue.delete_topic()
    await queue.create()
    assert format_of(queue) == str(FORMAT).encode()
