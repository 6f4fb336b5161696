"""The registry of topics, settings that travel, deletion, and callers that are behind."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ddq.config import Settings
from ddq.errors import StoreMalformed
from ddq.store.keys import ROOTS, ShardId
from ddq.store.topic_records import pack_document, unpack_topic
from ddq.task import TaskState, Topic, TopicSettings
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of
from tests.support.store import StoreServer


async def delete_wholly(queue: Queue, most: int = 100) -> list[bool]:
    """Calls DeleteTopic until it is done; what each call said."""
    seen: list[bool] = []
    while not seen or not seen[-1]:
        assert len(seen) < most, "the deletion does not end"
        seen.append((await queue.delete_topic()).done)
    return seen


def keys_of(server: StoreServer, name: str) -> set[str]:
    return {key.decode() for key in server.read("KEYS", f"ddq:*:{{{name}*}}")}


async def test_a_deleted_topic_leaves_only_a_small_control_key(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("done"))
    await queue.add_dead("dead")
    await queue.add("a")
    assert await delete_wholly(queue) == [True]
    assert keys_of(queue.server, queue.name) == {queue.key("control")}
    assert await queue.store.topics.load(queue.name, call()) is None
    control = queue.server.sync.hgetall(queue.key("control"))
    fields = {name for name in control if not name.startswith(b"p:")}  # type: ignore[arg-type]
    assert fields == {b"format", b"uid", b"erased", b"sequence", b"mark_ms", b"lineage"}


@pytest.mark.parametrize("shards", [1, 9])
async def test_a_deletion_goes_on_in_bounded_steps(
    open_store_here: OpenStoreHere, shards: int
) -> None:
    settings = Settings(operator_steps_max_count=2, purge_batch_count=2)
    queue = Queue(open_store_here(settings=settings))
    await queue.create(shards=shards, journal=True)
    for i in range(40):
        await queue.add(f"t{i}", delay_ms=5)
    seen = await delete_wholly(queue)
    assert len(seen) > 3
    assert await queue.store.topics.load(queue.name, call()) is None
    left = keys_of(queue.server, queue.name)
    assert left == {ShardId(queue.name, index).key("control") for index in range(shards)}


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_deletion_that_broke_off_before_its_last_step_can_be_finished(
    queue: Queue, shards: int
) -> None:
    """As if the process had died between erasing a shard and removing the topic."""
    topic_queue = Queue(queue.controlled_store, "half")
    await topic_queue.create(shards=shards)
    await topic_queue.add("a")
    topic = await queue.store.topics.mark_deleting(await topic_queue.topic(), call())
    await queue.store.operator_api.purge(topic, call("p"), while_deleting=True)
    reply = await queue.store.scripts.run(topic, 0, "erase", [500], call("p"), while_deleting=True)
    assert reply.body[0] == [1]
    assert await delete_wholly(topic_queue, most=5) == [True]
    assert await queue.store.topics.load("half", call()) is None


async def test_a_topic_that_is_being_deleted_takes_and_gives_nothing(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    lease = await queue.add_leased("a")
    topic = await queue.topic()
    elsewhere = Queue(open_store_here())
    await elsewhere.topic()
    await queue.store.topics.mark_deleting(topic, call())
    for each in (queue, elsewhere):
        assert (await error_of(each.add("b"))).reason == "TOPIC_NOT_FOUND"
        assert (await error_of(each.ack(lease))).reason == "TOPIC_NOT_FOUND"
        assert (await error_of(each.retrieve())).reason == "TOPIC_NOT_FOUND"
        assert (await error_of(each.promote())).reason == "TOPIC_NOT_FOUND"


async def test_a_process_that_is_behind_cannot_bring_a_deleted_topic_back(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    behind = Queue(open_store_here(settings=Settings(auto_create_topics=False)))
    old = await behind.topic()
    await behind.add("a")
    await queue.delete_topic()
    assert (await error_of(behind.add("b"))).reason == "TOPIC_NOT_FOUND"
    # It read the registry before the deletion and configures only now.
    await behind.store.shard_settings.configure_all(old, call())
    assert keys_of(queue.server, queue.name) == {queue.key("control")}
    assert queue.server.sync.hget(queue.key("control"), "erased") == b"1"


async def test_the_first_enqueue_after_a_deletion_elsewhere_recreates_the_topic(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    behind = Queue(open_store_here())
    await behind.add("a")
    await queue.delete_topic()
    assert (await behind.add("b")).created


async def test_a_topic_made_again_is_another_one_and_its_revisions_go_on(queue: Queue) -> None:
    old_topic = await queue.topic()
    old = await queue.add("a")
    await queue.delete_topic()
    topic = await queue.create()
    assert topic.uid > old_topic.uid
    new = await queue.add("a")
    assert new.created
    assert new.revision > old.revision
    assert (await queue.survey()).counts["enqueued"] == 1


async def test_a_topic_made_again_with_other_shards_is_not_confused(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    behind = Queue(open_store_here())
    old = await behind.topic()
    await queue.delete_topic()
    await queue.create(shards=4)
    reason = (await error_of(behind.store.scripts.run(old, 0, "survey", [], call()))).reason
    assert reason == "TOPIC_CHANGED"
    # From then on it knows.
    assert (await behind.add("a")).created
    assert await queue.state("a") is TaskState.SCHEDULED


async def test_settings_reach_shards_through_a_caller_that_is_behind(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    behind = Queue(open_store_here())
    await behind.add("a", max_attempts=None)
    topic = await queue.topic()
    settings = replace(topic.settings, lease_ms=77_000)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())
    await behind.promote()
    (lease,) = await behind.retrieve(lease_ms=None)
    assert lease.expiry_ms == queue.clock.store_ms + 77_000


async def test_a_retrieve_that_is_behind_leases_for_as_long_as_the_topic_says_now(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    """Objects made from the old settings are recreated when the shard reports newer ones."""
    behind = Queue(open_store_here())
    old = await behind.topic()
    await queue.add("a")
    settings = replace(old.settings, lease_ms=77_000)
    await queue.store.topics.update(await queue.topic(), replace(old, settings=settings), call())
    await queue.promote()
    (lease,), _, _ = await behind.store.jobs.retrieve(
        old, 0, max_tasks=1, max_bytes=1_000, lease_ms=None, call=call()
    )
    assert lease.expiry_ms == queue.clock.store_ms + 77_000


async def test_a_shard_that_an_update_did_not_reach_is_configured_on_first_use(
    queue: Queue,
) -> None:
    """As if the process had died between the registry and the shards."""
    topic = await queue.topic()
    changed = replace(topic, settings=replace(topic.settings, max_tasks=1))
    call_ = call()
    await queue.store.topics._runner.run_registry(
        ["update", topic.name, "", topic.revision, pack_document(changed)], call_
    )
    assert queue.server.sync.hget(queue.key("control"), "max_tasks") == b"0"
    queue.store.topics._known.clear()
    await queue.add("a")
    assert queue.server.sync.hget(queue.key("control"), "max_tasks") == b"1"


async def test_settings_never_go_back(queue: Queue) -> None:
    old = await queue.topic()
    await queue.pause()
    await queue.store.shard_settings.configure_all(old, call())
    await queue.add("a")
    assert await queue.promote() == 0


async def test_settings_that_keep_changing_are_said_to(queue: Queue) -> None:
    await queue.add("a")
    topic = await queue.topic()
    runner = queue.store.topics._runner
    inner = runner.run
    bumps = 0

    async def run(*args: object, **kwargs: object) -> object:
        nonlocal bumps
        if args[2] != "configure":
            # Another client is always one step ahead.
            bumps += 1
            queue.server.sync.hset(queue.key("control"), "settings_revision", 1_000 + bumps)
        return await inner(*args, **kwargs)  # type: ignore[arg-type]

    runner.run = run  # type: ignore[method-assign, assignment]
    error = await error_of(queue.store.scripts.run(topic, 0, "survey", [], call()))
    assert error.reason == "TOPIC_CHANGED"


async def test_pause_stops_promotion_and_delivery_only(queue: Queue) -> None:
    lease = await queue.add_leased("held")
    await queue.add("ready")
    await queue.promote()
    await queue.pause()
    await queue.add("scheduled")
    assert await queue.promote() == 0
    assert await queue.retrieve() == []
    survey = await queue.survey()
    assert survey.next_wake_up.due_ms is None, "a scheduler need not look before the topic goes on"
    await queue.extend(lease)
    queue.clock.advance(60_000)
    assert await queue.reap() == 1
    await queue.ack(lease)
    await queue.cancel("ready")
    await queue.pause(paused=False)
    assert await queue.promote() == 1
    assert [found.task.id for found in await queue.retrieve()] == ["scheduled"]


async def test_a_shards_share_of_max_tasks_is_rounded_up(queue: Queue) -> None:
    wide = Queue(queue.controlled_store, "wide")
    await wide.create(shards=3, max_tasks=10)
    for index in range(3):
        key = ShardId("wide", index).key("control")
        assert queue.server.sync.hget(key, "max_tasks") == b"4"


async def test_a_shards_share_of_max_bytes_is_rounded_up(queue: Queue) -> None:
    wide = Queue(queue.controlled_store, "wide")
    await wide.create(shards=3, max_bytes=100)
    for index in range(3):
        key = ShardId("wide", index).key("control")
        assert queue.server.sync.hget(key, "max_bytes") == b"34"


async def test_two_topics_share_nothing(queue: Queue) -> None:
    other = Queue(queue.controlled_store, "jobs.2")
    await other.create()
    await queue.add("a", b"one")
    await other.add("a", b"two")
    await other.cancel("a")
    assert (await queue.get("a")).payload == b"one"
    await other.delete_topic()
    assert await queue.state("a") is TaskState.SCHEDULED


async def test_the_keys_of_a_shard_are_those_that_the_documents_name(queue: Queue) -> None:
    await queue.create()
    await queue.add_dead("dead")
    await queue.ack(await queue.add_leased("done"))
    await queue.add_leased("leased", delay_ms=0)
    await queue.add("ready")
    await queue.promote()
    await queue.add("scheduled", delay_ms=9)
    await queue.reschedule("scheduled", 10)
    topic = await queue.topic()
    settings = replace(topic.settings, journal=True)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())
    await queue.add("journalled")
    assert keys_of(queue.server, queue.name) == {f"ddq:{root}:{{jobs}}" for root in ROOTS}


async def test_auto_creation_can_be_switched_off(open_store_here: OpenStoreHere) -> None:
    queue = Queue(open_store_here(settings=Settings(auto_create_topics=False)), "missing")
    assert (await error_of(queue.add("a"))).reason == "TOPIC_NOT_FOUND"
    automatic = Queue(open_store_here(), "missing")
    assert (await automatic.add("a")).created
    assert (await automatic.topic()).settings == TopicSettings()
    assert_all_conserved(automatic.server.sync)


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("fsync", TopicSettings(fsync=True)),
        ("max_run_ms", TopicSettings(max_run_ms=1)),
        ("max_bytes", TopicSettings(max_bytes=1)),
    ],
)
def test_a_later_setting_is_written_only_where_it_is_used(name: str, used: TopicSettings) -> None:
    # An older version takes a topic with a setting that it does not know for damaged, and leaves
    # it out.
    topic = Topic("mail", b"u" * 16, 1, 1, TopicSettings(), 7)
    plain, with_it = pack_document(topic), pack_document(replace(topic, settings=used))
    assert name.encode() not in plain
    assert name.encode() in with_it
    head = b"u" * 16 + (1).to_bytes(8, "big")
    assert unpack_topic("mail", head + plain).settings == TopicSettings()
    assert unpack_topic("mail", head + with_it).settings == used


def test_a_setting_of_a_newer_version_is_named_with_the_remedy() -> None:
    document = json.loads(pack_document(Topic("mail", b"u" * 16, 1, 1, TopicSettings(), 7)))
    document["settings"]["colour"] = "red"
    with pytest.raises(StoreMalformed, match=r"'mail' has settings .*colour.* upgrade"):
        unpack_topic("mail", b"u" * 24 + json.dumps(document).encode())
