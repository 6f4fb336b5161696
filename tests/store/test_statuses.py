"""Every status that a script's header lists is reached by a case, and no case is missing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ddq.errors import DdqError
from ddq.store.job_values import (
    Continuation,
    Extension,
    Postponement,
    Rejection,
    Removal,
    Settlement,
)
from ddq.store.keys import TOPICS_CONFIRMED
from ddq.store.records import FORMAT
from ddq.store.scheduler_api import Leadership
from ddq.store.scripts import load_scripts, script_texts
from ddq.task import OnConflict, Schedule, TaskState
from tests.support.queue import Queue, call, error_of, errors

Case = Callable[[Queue], Awaitable[None]]

CASES: dict[tuple[str, str], Case] = {}
TOKEN = bytes(16)
DAY_MS = 86_400_000


def reaches(script: str, status: str) -> Callable[[Case], Case]:
    """Registers the case that ends with this script answering this status."""

    def register(case: Case) -> Case:
        assert (script, status) not in CASES
        CASES[script, status] = case
        return case

    return register


def promised_statuses() -> set[tuple[str, str]]:
    """(script, status) of every "returns" line; "CREATED, EXISTS   text" has two."""
    promised = set()
    for script in load_scripts().values():
        for line in script.returns:
            names = re.match(r"((?:[A-Z][A-Z_]+)(?:, [A-Z][A-Z_]+)*)  ", line)
            if names:
                promised |= {(script.name, name) for name in names[1].split(", ")}
    return promised


def fields_of(queue: Queue, key: str) -> dict[bytes, bytes]:
    """Everything in a hash."""
    pairs = queue.server.read("HGETALL", key)
    assert isinstance(pairs, dict)
    return pairs


def refusals_of_the_prelude() -> set[str]:
    """Every status that a script refuses with before it begins."""
    return set(re.findall(r"refuse\('([A-Z_]+)'", "\n".join(script_texts().values())))


def test_every_promised_status_has_a_case() -> None:
    promised = promised_statuses()
    assert len(promised) > 60
    assert set(CASES) == promised


def test_every_refusal_has_a_case() -> None:
    assert refusals_of_the_prelude() == set(REFUSALS)


def spoil(queue: Queue) -> None:
    """An id whose records cannot be read; it is in no index and no counter."""
    queue.server.sync.hset(queue.key("payloads"), "junk", b"\xff")


# enqueue -----------------------------------------------------------------------------------


@reaches("enqueue", "CREATED")
async def _(queue: Queue) -> None:
    assert (await queue.add("a")).created


@reaches("enqueue", "EXISTS")
async def _(queue: Queue) -> None:
    first = await queue.add("a")
    again = await queue.add("a")
    assert not again.created
    assert again.incarnation == first.incarnation


@reaches("enqueue", "CONFLICT")
async def _(queue: Queue) -> None:
    await queue.add("a", b"one")
    assert (await error_of(queue.add("a", b"two"))).reason == "TASK_ID_CONFLICT"
    assert (await queue.get("a")).payload == b"one"


async def replaced_in_vain(queue: Queue, mode: OnConflict) -> DdqError:
    error = await error_of(queue.add("a", b"new", on_conflict=mode, request_id="r"))
    assert (await queue.get("a")).payload in {b"payload", None}
    return error


@reaches("enqueue", "SCHEDULED")
async def _(queue: Queue) -> None:
    await queue.add("a")
    error = await replaced_in_vain(queue, OnConflict.REPLACE_IF_FINISHED)
    assert error.reason == "TASK_ID_CONFLICT"


@reaches("enqueue", "READY")
async def _(queue: Queue) -> None:
    await queue.add("a")
    await queue.promote()
    error = await replaced_in_vain(queue, OnConflict.REPLACE_IF_SCHEDULED)
    assert error.reason == "TASK_READY"


@reaches("enqueue", "LEASED")
async def _(queue: Queue) -> None:
    await queue.add_leased("a")
    error = await replaced_in_vain(queue, OnConflict.REPLACE_IF_SCHEDULED)
    assert error.reason == "TASK_LEASED"


@reaches("enqueue", "FINISHED")
async def _(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("a"))
    error = await replaced_in_vain(queue, OnConflict.REPLACE_IF_SCHEDULED)
    assert error.reason == "TASK_FINISHED"


@reaches("enqueue", "REVISION")
async def _(queue: Queue) -> None:
    first = await queue.add("a")
    options = {"on_conflict": OnConflict.REPLACE_IF_SCHEDULED, "request_id": "r"}
    error = await error_of(queue.add("a", b"new", expected_revision=99, **options))
    assert error.reason == "REVISION_MISMATCH"
    assert (await queue.get("a")).incarnation == first.incarnation
    # What is expected to be there at a revision is not created where nothing is.
    error = await error_of(queue.add("b", b"new", expected_revision=99, **options))
    assert error.reason == "REVISION_MISMATCH"
    assert (await error_of(queue.get("b"))).reason == "TASK_NOT_FOUND"


@reaches("enqueue", "FULL")
async def _(queue: Queue) -> None:
    topic = await queue.topic()
    settings = replace(topic.settings, max_tasks=1)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())
    await queue.add("a")
    assert (await error_of(queue.add("b"))).reason == "TOPIC_FULL"


@reaches("enqueue", "FULL_BYTES")
async def _(queue: Queue) -> None:
    topic = await queue.topic()
    settings = replace(topic.settings, max_bytes=1)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())
    error = await error_of(queue.add("a", b"two"))
    assert (error.reason, "max_bytes" in str(error)) == ("TOPIC_FULL", True)


@reaches("enqueue", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert (await error_of(queue.add("junk"))).reason == "STORE_MALFORMED"


# remove ------------------------------------------------------------------------------------


@reaches("remove", "CANCELLED")
async def _(queue: Queue) -> None:
    await queue.add("a")
    assert not (await queue.cancel("a")).already


@reaches("remove", "ALREADY")
async def _(queue: Queue) -> None:
    await queue.add("a")
    first = await queue.cancel("a")
    again = await queue.cancel("a")
    assert again.already
    assert again.revision == first.revision


@reaches("remove", "LEASED")
async def _(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert (await error_of(queue.cancel("a"))).reason == "TASK_LEASED"
    await queue.ack(lease)


@reaches("remove", "FINISHED")
async def _(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("a"))
    assert (await error_of(queue.cancel("a", revoke=True))).reason == "TASK_FINISHED"


@reaches("remove", "NOT_FOUND")
async def _(queue: Queue) -> None:
    assert (await error_of(queue.cancel("a"))).reason == "TASK_NOT_FOUND"


@reaches("remove", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert (await error_of(queue.cancel("junk"))).reason == "STORE_MALFORMED"


# reschedule --------------------------------------------------------------------------------


@reaches("reschedule", "OK")
async def _(queue: Queue) -> None:
    await queue.add("a", delay_ms=5_000)
    assert (await queue.reschedule("a", 9_000)).at_ms == queue.clock.store_ms + 9_000


@reaches("reschedule", "LEASED")
async def _(queue: Queue) -> None:
    await queue.add_leased("a")
    assert (await error_of(queue.reschedule("a", 1))).reason == "TASK_LEASED"


@reaches("reschedule", "FINISHED")
async def _(queue: Queue) -> None:
    await queue.add_dead("a")
    assert (await error_of(queue.reschedule("a", 1))).reason == "TASK_FINISHED"


@reaches("reschedule", "REVISION")
async def _(queue: Queue) -> None:
    first = await queue.add("a", delay_ms=5_000)
    error = await error_of(queue.reschedule("a", 1, expected=first.revision + 1))
    assert error.reason == "REVISION_MISMATCH"
    assert (await queue.get("a")).due_ms == first.due_ms


@reaches("reschedule", "NOT_FOUND")
async def _(queue: Queue) -> None:
    assert (await error_of(queue.reschedule("a", 1))).reason == "TASK_NOT_FOUND"


@reaches("reschedule", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert (await error_of(queue.reschedule("junk", 1))).reason == "STORE_MALFORMED"


# retrieve ----------------------------------------------------------------------------------


@reaches("retrieve", "LEASED")
async def _(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert len(lease.token) == 16


@reaches("retrieve", "REPEATED")
async def _(queue: Queue) -> None:
    await queue.add("a")
    await queue.promote()
    first = await queue.retrieve(request_id="r")
    again = await queue.retrieve(request_id="r")
    assert [lease.token for lease in again] == [lease.token for lease in first]


# ack, nack, release, snooze, extend --------------------------------------------------------


@reaches("ack", "OK")
async def _(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("a"))


@reaches("run_again", "OK")
async def _(queue: Queue) -> None:
    await queue.run_again(await queue.add_leased("a"))
    assert await queue.state("a") is TaskState.SCHEDULED


@reaches("nack", "OK")
async def _(queue: Queue) -> None:
    await queue.nack(await queue.add_leased("a"))


@reaches("release", "OK")
async def _(queue: Queue) -> None:
    await queue.release(await queue.add_leased("a"))


@reaches("snooze", "OK")
async def _(queue: Queue) -> None:
    await queue.snooze(await queue.add_leased("a"))


@reaches("snooze", "SNOOZED_OUT")
async def _(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    queue.store.jobs.snoozes_max_count = 0
    assert (await error_of(queue.snooze(lease))).reason == "SNOOZE_LIMIT"
    await queue.ack(lease)


@reaches("extend", "OK")
async def _(queue: Queue) -> None:
    await queue.extend(await queue.add_leased("a"))


async def settle(queue: Queue, script: str, task_id: str, token: bytes = TOKEN) -> list[str]:
    jobs, name = queue.store.jobs, queue.name
    if script == "ack":
        return errors(await jobs.ack(name, [Settlement(task_id, token)], call()))
    if script == "run_again":
        item = Continuation(task_id, token, Schedule())
        return errors([await jobs.run_again(name, item, call())])
    if script == "release":
        return errors(await jobs.release(name, [Settlement(task_id, token)], call()))
    if script == "nack":
        return errors(await jobs.nack(name, [Rejection(task_id, token)], call()))
    if script == "snooze":
        return errors(await jobs.snooze(name, [Postponement(task_id, token, 1)], call()))
    return errors(await jobs.extend(name, [Extension(task_id, token)], call()))


def settling(script: str) -> None:
    @reaches(script, "LEASE_LOST")
    async def _(queue: Queue) -> None:
        lease = await queue.add_leased("a")
        before = queue.server.sync.hgetall(queue.key("states"))
        assert await settle(queue, script, "a") == ["LEASE_LOST"]
        assert queue.server.sync.hgetall(queue.key("states")) == before
        assert await settle(queue, script, "a", lease.token) == ["OK"]

    @reaches(script, "NOT_FOUND")
    async def _(queue: Queue) -> None:
        assert await settle(queue, script, "a") == ["TASK_NOT_FOUND"]

    @reaches(script, "MALFORMED")
    async def _(queue: Queue) -> None:
        spoil(queue)
        assert await settle(queue, script, "junk") == ["STORE_MALFORMED"]


for name in ("ack", "run_again", "nack", "release", "snooze", "extend"):
    settling(name)


# get ---------------------------------------------------------------------------------------


@reaches("get", "OK")
async def _(queue: Queue) -> None:
    await queue.add("a", b"bytes", headers={"k": "v"})
    assert (await queue.get("a")).payload == b"bytes"
    basic = await queue.get("a", full=False)
    assert basic.payload is None
    assert (basic.headers, basic.payload_size_bytes) == ({"k": "v"}, 5)


@reaches("get", "NOT_FOUND")
async def _(queue: Queue) -> None:
    assert (await error_of(queue.get("a"))).reason == "TASK_NOT_FOUND"


@reaches("get", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert (await error_of(queue.get("junk"))).reason == "STORE_MALFORMED"


# Leadership --------------------------------------------------------------------------------


@reaches("acquire", "ACQUIRED")
async def _(queue: Queue) -> None:
    assert (await queue.lead()).epoch == 1


@reaches("acquire", "KEPT")
async def _(queue: Queue) -> None:
    assert await queue.lead() == await queue.lead()


@reaches("acquire", "TAKEN")
async def _(queue: Queue) -> None:
    await queue.lead()
    other = await queue.store.scheduler_api.acquire(await queue.topic(), queue.shard, None, call())
    assert other.leadership is None
    assert other.remaining_ms == queue.store.settings.leader_lease_ms


@reaches("resign", "RESIGNED")
async def _(queue: Queue) -> None:
    held = await queue.lead()
    assert await queue.store.scheduler_api.resign(await queue.topic(), queue.shard, held, call())


STALE = Leadership(TOKEN, 9)


@reaches("resign", "NOT_LEADER")
async def _(queue: Queue) -> None:
    held = await queue.lead()
    topic = await queue.topic()
    assert not await queue.store.scheduler_api.resign(topic, queue.shard, STALE, call())
    assert await queue.lead() == held


@reaches("promote", "OK")
async def _(queue: Queue) -> None:
    await queue.add("a")
    assert await queue.promote() == 1


@reaches("promote", "NOT_LEADER")
async def _(queue: Queue) -> None:
    await queue.add("a")
    moved = await queue.store.scheduler_api.promote(await queue.topic(), queue.shard, STALE, call())
    assert (moved.deposed, moved.count) == (True, 0)


@reaches("reap", "OK")
async def _(queue: Queue) -> None:
    await queue.add_leased("a")
    queue.clock.advance(10_000)
    assert await queue.reap() == 1


@reaches("reap", "NOT_LEADER")
async def _(queue: Queue) -> None:
    await queue.add_leased("a")
    queue.clock.advance(10_000)
    moved = await queue.store.scheduler_api.reap(await queue.topic(), queue.shard, STALE, call())
    assert (moved.deposed, moved.count) == (True, 0)


# Dead tasks --------------------------------------------------------------------------------


@reaches("redrive", "OK")
async def _(queue: Queue) -> None:
    await queue.add_dead("a")
    assert errors(await queue.redrive("a")) == ["OK"]


@reaches("redrive", "NOT_DEAD")
async def _(queue: Queue) -> None:
    await queue.add("a")
    assert errors(await queue.redrive("a")) == ["TASK_NOT_DEAD"]


@reaches("redrive", "NOT_FOUND")
async def _(queue: Queue) -> None:
    assert errors(await queue.redrive("a")) == ["TASK_NOT_FOUND"]


@reaches("redrive", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert errors(await queue.redrive("junk")) == ["STORE_MALFORMED"]


@reaches("delete_dead", "OK")
async def _(queue: Queue) -> None:
    await queue.add_dead("a")
    first = await queue.delete_dead("a")
    assert await queue.delete_dead("a") == first


@reaches("delete_dead", "NOT_DEAD")
async def _(queue: Queue) -> None:
    await queue.add("a")
    assert (await error_of(queue.delete_dead("a"))).reason == "TASK_NOT_DEAD"


@reaches("delete_dead", "REVISION")
async def _(queue: Queue) -> None:
    await queue.add_dead("a")
    assert (await error_of(queue.delete_dead("a", 1))).reason == "REVISION_MISMATCH"


@reaches("delete_dead", "NOT_FOUND")
async def _(queue: Queue) -> None:
    assert (await error_of(queue.delete_dead("a"))).reason == "TASK_NOT_FOUND"


@reaches("delete_dead", "MALFORMED")
async def _(queue: Queue) -> None:
    spoil(queue)
    assert (await error_of(queue.delete_dead("junk"))).reason == "STORE_MALFORMED"


# Topics ------------------------------------------------------------------------------------


@reaches("configure", "OK")
async def _(queue: Queue) -> None:
    await queue.store.shard_settings.configure_all(await queue.topic(), call())


@reaches("configure", "NEWER")
async def _(queue: Queue) -> None:
    old = await queue.topic()
    await queue.pause()
    await queue.store.shard_settings.configure_all(old, call())
    assert queue.server.sync.hget(queue.key("control"), "paused") == b"1"


@reaches("configure", "OTHER_TOPIC")
async def _(queue: Queue) -> None:
    topic = await queue.topic()
    later = replace(topic, uid=b"\xff" * 16)
    error = await error_of(queue.store.shard_settings.configure_all(later, call()))
    assert error.reason == "STORE_MALFORMED"
    assert queue.key("control") in error.message
    assert queue.server.sync.hget(queue.key("control"), "uid") == topic.uid


@reaches("registry", "OK")
async def _(queue: Queue) -> None:
    assert (await queue.topic()).revision == 1


@reaches("registry", "EXISTS")
async def _(queue: Queue) -> None:
    topic = await queue.topic()
    again, created = await queue.store.topics.create(queue.name, 1, topic.settings, call())
    assert (again, created) == (topic, False)


@reaches("registry", "REVISION")
async def _(queue: Queue) -> None:
    old = await queue.topic()
    await queue.pause()
    changed = replace(old, paused=False)
    error = await error_of(queue.store.topics.update(old, changed, call()))
    assert error.reason == "REVISION_MISMATCH"
    assert (await queue.topic()).paused


@reaches("registry", "EXPIRED")
async def _(queue: Queue) -> None:
    topic = await queue.topic()
    late = replace(call(), not_after_ms=1)
    error = await error_of(queue.store.topics.update(topic, replace(topic, paused=True), late))
    assert error.reason == "REQUEST_EXPIRED"
    assert not (await queue.topic()).paused


@reaches("registry", "MALFORMED")
async def _(queue: Queue) -> None:
    queue.server.sync.hset("ddq:topics", "short", b"short")
    error = await error_of(queue.store.topics.load("short", call()))
    assert error.reason == "STORE_MALFORMED"
    assert "ddq:topics" in error.message
    assert "short" in error.message


@reaches("registry", "ROLLBACK")
async def _(queue: Queue) -> None:
    name = next(n for n in fields_of(queue, TOPICS_CONFIRMED) if n.startswith(b"p:"))
    queue.server.sync.hdel(TOPICS_CONFIRMED, name)
    error = await error_of(queue.store.topics.load(queue.name, call()))
    assert error.reason == "ROLLBACK_DETECTED"
    await queue.store.recovery_api.accept_rollback_of_registry(replace(call(), durable=False))
    assert await queue.store.topics.load(queue.name, call())


@reaches("accept_rollback", "OK")
async def _(queue: Queue) -> None:
    await queue.add("a")
    client, control = queue.server.sync, queue.key("control")
    name = next(n for n in fields_of(queue, control) if n.startswith(b"p:"))
    client.hdel(control, name)
    assert errors(await queue.store.jobs.remove(queue.name, [Removal("a")], call())) == [
        "ROLLBACK_DETECTED"
    ]
    await queue.store.recovery_api.accept_rollback(
        await queue.topic(), replace(call(), durable=False)
    )
    await queue.cancel("a")


@reaches("reset_clock", "OK")
async def _(queue: Queue) -> None:
    """One look at a clock that was an hour ahead, and the shard would stand still for that hour."""
    await queue.lead()
    await queue.add("a", delay_ms=10)
    queue.server.sync.hset(queue.key("control"), "mark_ms", queue.clock.store_ms + 3_600_000)
    queue.server.sync.hset(
        queue.key("control"), "leader_until_ms", queue.clock.store_ms + 3_600_000
    )
    error = await error_of(queue.cancel("a"))
    assert error.reason == "CLOCK_UNSAFE"
    (reset,) = await queue.store.recovery_api.reset_clock(await queue.topic(), call())
    assert (reset.before_ms - reset.after_ms, reset.after_ms) == (3_600_000, queue.clock.store_ms)
    queue.clock.advance(10)
    queue.leadership = None
    assert await queue.promote() == 1, "another may lead at once"


async def test_a_reset_of_the_clock_is_refused_while_the_clocks_are_apart(queue: Queue) -> None:
    queue.clock.set_apart(5_000)
    error = await error_of(queue.store.recovery_api.reset_clock(await queue.topic(), call()))
    assert error.reason == "CLOCK_UNSAFE"
    assert "NTP" in error.message
    queue.clock.set_apart(0)


# What any script refuses -------------------------------------------------------------------

REFUSALS = {
    "MALFORMED": "STORE_MALFORMED",
    "FORMAT": "STORE_MALFORMED",
    "TOPIC_CHANGED": "",
    "ROLLBACK": "ROLLBACK_DETECTED",
    "CLOCK_UNSAFE": "CLOCK_UNSAFE",
    "REQUEST_EXPIRED": "REQUEST_EXPIRED",
    "TOPIC_DELETING": "TOPIC_NOT_FOUND",
}


@pytest.mark.parametrize("status", sorted(set(REFUSALS) - {"TOPIC_CHANGED"}))
async def test_refusal_changes_nothing(queue: Queue, status: str) -> None:
    await queue.add("a")
    client, control = queue.server.sync, queue.key("control")
    not_after_ms = 0
    if status == "MALFORMED":
        client.hset(control, "n:ready", "many")
    elif status == "FORMAT":
        client.hset(control, "format", FORMAT + 1)
    elif status == "CLOCK_UNSAFE":
        queue.clock.set_apart(1_001)
    elif status == "REQUEST_EXPIRED":
        not_after_ms = queue.clock.store_ms - 1
    elif status == "TOPIC_DELETING":
        client.hset(control, "deleting", 1)
    elif status == "ROLLBACK":
        for name in fields_of(queue, control):
            if name.startswith(b"p:"):
                client.hdel(control, name)

    def held() -> dict[str, object]:
        kept: dict[str, object] = {r: client.dump(queue.key(r)) for r in ("tasks", "states")}
        # That it refused is written down: WAIT has to have something to speak of.
        fields = fields_of(queue, control)
        return kept | {str(name): fields[name] for name in fields if name != b"refused_ms"}

    before = held()
    outcomes = await queue.store.jobs.remove(
        queue.name, [Removal("a")], call(not_after_ms=not_after_ms)
    )
    assert errors(outcomes) == [REFUSALS[status]]
    assert before == held()
    knows_the_shard = status not in {"MALFORMED", "FORMAT"}
    assert client.hexists(control, "refused_ms") is knows_the_shard
    client.hset(control, "n:ready", 0)


async def test_a_changed_topic_is_read_again_and_the_request_served(queue: Queue) -> None:
    await queue.add("a")
    queue.server.sync.hset(queue.key("control"), "settings_revision", 0)
    await queue.cancel("a")
    assert queue.server.sync.hget(queue.key("control"), "settings_revision") == b"1"


# Last, when all cases are registered.
@pytest.mark.parametrize(("script", "status"), sorted(CASES))
async def test_status(queue: Queue, script: str, status: str) -> None:
    await CASES[script, status](queue)
    assert (script, status) in queue.controlled_store.connection.seen
    queue.server.sync.hdel(queue.key("payloads"), "junk")
