"""A store that an earlier version wrote is found and served, and a later one's is refused.

``fixtures/v0.1.0.json`` and ``fixtures/v0.2.0.json`` are what the store held after the code of that
version had enqueued, cancelled, leased, acked and failed tasks of a topic with two shards.
"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from ddq.config import Settings
from ddq.store.job_values import Settlement
from ddq.store.keys import TOPICS, ShardId, shard_of
from ddq.task import Durability, OnConflict, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of, errors
from tests.support.store import StoreServer

VERSIONS = ("0.1.0", "0.2.0")
ALL = 20
"""More steps of an upgrade than are needed."""
WRITTEN: dict[str, dict[str, Any]] = {
    version: json.loads((Path(__file__).parent / "fixtures" / f"v{version}.json").read_bytes())
    for version in VERSIONS
}


def put_back(server: StoreServer, version: str) -> None:
    """Writes the keys as they were."""
    for key, (kind, value) in WRITTEN[version]["keys"].items():
        if kind == "hash":
            server.sync.hset(key, mapping={b64decode(k): b64decode(v) for k, v in value.items()})
        elif kind == "zset":
            server.sync.zadd(key, {b64decode(k): score for k, score in value.items()})
        else:
            for entry, fields in value:
                pairs: dict[Any, Any] = {b64decode(k): b64decode(v) for k, v in fields.items()}
                server.sync.xadd(key, pairs, id=entry)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Who wrote the store."""
    return str(request.param)


@pytest.fixture(params=[0, 1, 3, ALL])
async def old(
    request: pytest.FixtureRequest,
    version: str,
    store_server: StoreServer,
    open_store_here: OpenStoreHere,
) -> Queue:
    """The topic of that version, a moment later, and after some steps of an upgrade."""
    put_back(store_server, version)
    queue = Queue(open_store_here())
    queue.clock.set(WRITTEN[version]["now_ms"] + 10)
    steps = request.param
    if steps:
        await queue.store.recovery_api.upgrade(call())
        small = Queue(open_store_here(settings=Settings(promote_batch_count=1)))
        await small.store.topics.version(call())
        for shard in (0, 1):
            done = [await small.upgrade(shard) for _ in range(steps)]
            assert done[-1] is (steps == ALL)
    return queue


async def promote_all(queue: Queue) -> None:
    for shard in (0, 1):
        queue.leadership = None
        await queue.promote(shard)


async def test_its_tasks_are_served_in_their_states(old: Queue) -> None:
    assert (await old.topic()).settings.durability is Durability.FAST
    states = {name: await old.state(name) for name in
              ("later", "soon", "cancelled", "done", "leased", "dead", "retried")}  # fmt: skip
    assert states == {
        "later": TaskState.SCHEDULED, "soon": TaskState.SCHEDULED, "retried": TaskState.SCHEDULED,
        "cancelled": TaskState.CANCELLED, "done": TaskState.SUCCEEDED, "leased": TaskState.LEASED,
        "dead": TaskState.DEAD,
    }  # fmt: skip
    old.clock.advance(3_600_000)
    await promote_all(old)
    got = [lease for shard in (0, 1) for lease in await old.retrieve(10, shard=shard)]
    assert {lease.task.id: lease.task.payload for lease in got} == {
        "later": b"due in an hour", "soon": b"due in a second", "retried": b"retried"
    }  # fmt: skip
    for lease in got:
        await old.ack(lease)
    assert_all_conserved(old.server.sync)


async def test_its_tokens_tombstones_and_request_records_still_hold(
    old: Queue, version: str
) -> None:
    tokens = {name: bytes.fromhex(token) for name, token in WRITTEN[version]["tokens"].items()}
    # The reply to the request that leased it was lost: repeated, it gets the lease and no other.
    shard = shard_of("leased", 2)
    recalled = await old.retrieve(10, request_id=f"request-{shard}", shard=shard)
    assert [(lease.task.id, lease.token) for lease in recalled] == [("leased", tokens["leased"])]
    await old.ack(recalled[0])
    assert await old.state("leased") is TaskState.SUCCEEDED
    # Late requests for what has ended are answered truthfully.
    (settled,) = await old.store.jobs.ack("jobs", [Settlement("done", tokens["done"])], call())
    assert settled.unwrap().revision > 0
    (lost,) = await old.store.jobs.ack("jobs", [Settlement("done", b"x" * 16)], call())
    assert errors([lost]) == ["LEASE_LOST"]
    assert (await old.cancel("cancelled")).already
    assert (await error_of(old.cancel("done"))).reason == "TASK_FINISHED"
    assert (await error_of(old.add("done", b"other"))).reason == "TASK_ID_CONFLICT"
    await old.redrive("dead")
    assert await old.state("dead") is TaskState.SCHEDULED
    assert_all_conserved(old.server.sync)


async def test_its_tasks_are_snoozed_debounced_and_run_again(old: Queue) -> None:
    shard = shard_of("leased", 2)
    (lease,) = await old.retrieve(10, request_id=f"request-{shard}", shard=shard)
    await old.snooze(lease, 1_000)
    task = await old.get("leased")
    assert (task.state, task.attempt, task.snoozes) == (TaskState.SCHEDULED, 0, 1)
    later = await old.get("later")
    event = await old.add(
        "later", b"sooner", delay_ms=7_200_000, on_conflict=OnConflict.DEBOUNCE,
        debounce_limit_ms=1_800_000, request_id="r",
    )  # fmt: skip
    assert event.due_ms == later.created_ms + 1_800_000
    old.clock.advance(60_000)
    await promote_all(old)
    got = {lease.task.id: lease for each in (0, 1) for lease in await old.retrieve(shard=each)}
    made = await old.run_again(got["retried"])
    again = await old.get("retried")
    assert (again.incarnation, again.attempt, again.payload) == (made.incarnation, 0, b"retried")
    for name in ("soon", "leased"):
        await old.ack(got[name])
    assert_all_conserved(old.server.sync)


async def test_fields_beside_the_table_of_topics_are_not_taken_for_topics(old: Queue) -> None:
    # 0.1 takes every field but '#' for a topic, and one that it cannot read for damage.
    await Queue(old.controlled_store, "new").create(durability=Durability.QUORUM)
    fields = old.server.sync.hgetall(TOPICS)
    assert isinstance(fields, dict)
    assert set(fields) == {b"#", b"jobs", b"new"}
    old_settings, new_settings = (
        json.loads(fields[name][24:])["settings"] for name in (b"jobs", b"new")
    )
    assert new_settings.keys() == old_settings.keys()


async def test_a_store_of_a_newer_format_is_refused_with_the_remedy(
    old: Queue, version: str, store_server: StoreServer
) -> None:
    for shard in (0, 1):
        store_server.sync.hset(ShardId("jobs", shard).key("control"), "format", 3)
    keys = WRITTEN[version]["keys"]
    before = {key: store_server.sync.dump(key) for key in keys if "states" in key}
    error = await error_of(old.add("fresh"))
    assert error.reason == "STORE_MALFORMED"
    assert "format 3" in error.message
    assert "use a newer ddq" in error.message
    assert before == {key: store_server.sync.dump(key) for key in before}
