"""A shard of format 1 becomes one of format 2 in steps, and no client can tell at which it is."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ddq.config import Settings
from ddq.errors import DdqError
from ddq.store.ids import pack_id
from ddq.store.job_values import Cursor, Settlement
from ddq.store.keys import ROOTS, TOPICS_CONFIRMED
from ddq.task import OnConflict, Task, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue, call, errors, new_task
from tests.support.store import ControlledStore, ManualClock, StoreServer

MIB = 1024 * 1024


def uuid_of(number: int) -> str:
    """A UUID whose place among others is that of its number."""
    return f"{number:08x}-0000-7000-8000-{number:012x}"


def name_of(task_id: str) -> bytes:
    """What keys call it in format 2."""
    packed = pack_id(task_id)
    return packed if isinstance(packed, bytes) else packed.encode()


async def older_queue(server: StoreServer, **settings: Any) -> Queue:
    """A topic of format 1 in a store that allows the latest one."""
    server.sync.hset(TOPICS_CONFIRMED, "format", 1)
    queue = Queue(ControlledStore(server, Settings(**settings)))
    await queue.create(tombstone_retention_ms=3_600_000)
    await queue.store.recovery_api.upgrade(call())
    return queue


async def upgrade(queue: Queue, *, most: int = 1_000) -> int:
    """All steps; how many there were."""
    for step in range(1, most):
        if await queue.upgrade():
            return step
    raise AssertionError(f"not done after {most} steps")


def names_in(queue: Queue) -> set[bytes]:
    """Every name of a task in any key of the shard."""
    read, names = queue.server.read, set()
    for root in ("payloads", "states"):
        names |= set(read("HKEYS", queue.key(root)))
    for root in ("tasks", "ready", "leases", "dead", "finished"):
        names |= set(read("ZRANGE", queue.key(root), 0, -1))
    for field in read("HKEYS", queue.key("requests")):
        _, size, rest = field.split(b":", 2)
        names.add(rest[int(size) + 1 :])
    return names - {b""}


def records_in(queue: Queue) -> list[bytes]:
    """Every payload record."""
    return list(queue.server.read("HVALS", queue.key("payloads")))


# Every step --------------------------------------------------------------------------------

TASKS = {
    name: [uuid_of(number), f"{number:08x}-0000-7000-8000-00000000000A"]
    for number, name in enumerate(
        ["soon", "later", "ready", "leased", "expired", "dead", "done", "cancelled", "purged",
         "retried", "again", "moved", "replaced", "snoozed", "redriven"]
    )
}  # fmt: skip
"""For each situation a task with a UUID, and one whose id only looks like one."""
IDS = [task_id for pair in TASKS.values() for task_id in pair]


async def settle_all(queue: Queue) -> dict[str, bytes]:  # noqa: PLR0912 - one case each
    """Brings tasks into every state; the tokens that are still of use."""
    tokens: dict[str, bytes] = {}
    for at, task_id in enumerate(IDS):
        delay_ms = 1_000_000 + at if task_id in TASKS["later"] else at
        await queue.add(task_id, task_id.encode(), delay_ms=delay_ms, headers={"of": task_id})
        queue.clock.advance(1)
    queue.clock.advance(1_000)
    await queue.promote()
    taken = {name for name in TASKS if name not in {"soon", "later", "ready"}}
    for lease in await queue.retrieve(100, request_id="lease", lease_ms=10_000):
        tokens[lease.task.id] = lease.token
        (name,) = (name for name, ids in TASKS.items() if lease.task.id in ids)
        if name not in taken:
            await queue.release(lease)
        elif name == "expired":
            await queue.extend(lease, 11_000)
        elif name == "dead":
            await queue.nack(lease, dead=True, error="broken")
        elif name == "done":
            await queue.ack(lease)
        elif name in {"cancelled", "replaced"}:
            await queue.cancel(lease.task.id, revoke=True, request_id="cancel")
        elif name == "purged":
            await queue.nack(lease, dead=True)
            await queue.delete_dead(lease.task.id)
        elif name == "retried":
            await queue.nack(lease, delay_ms=20_000, error="later")
        elif name == "again":
            await queue.run_again(lease, 20_000)
        elif name == "moved":
            await queue.release(lease)
            await queue.reschedule(lease.task.id, 20_000, request_id="move")
        elif name == "snoozed":
            await queue.snooze(lease, 20_000)
        elif name == "redriven":
            await queue.nack(lease, dead=True)
            await queue.redrive(lease.task.id, request_id="redrive")
    for task_id in TASKS["soon"]:
        await queue.reschedule(task_id, 5, request_id="soon")
    for task_id in TASKS["replaced"]:
        await queue.add(
            task_id, b"new", delay_ms=30_000, on_conflict=OnConflict.REPLACE_IF_FINISHED,
            request_id="replace",
        )  # fmt: skip
    return tokens


async def use_all(queue: Queue, tokens: dict[str, bytes]) -> list[Any]:
    """What clients get: listings, repeats of all requests, the rest of every life."""
    replies: list[Any] = []
    jobs, name = queue.store.jobs, queue.name

    async def tell(awaitable: Any) -> None:
        try:
            replies.append(await awaitable)
        except DdqError as error:
            replies.append(repr(error))

    # First, while the tasks still have whatever names the upgrade has left them.
    held = await queue.retrieve(100, request_id="lease")
    replies += [(lease.task, lease.expiry_ms) for lease in held]
    assert replies
    for state in TaskState:
        cursor: Cursor | None = Cursor()
        listed: list[Task] = []
        while cursor is not None:
            tasks, cursor = await jobs.list_tasks(
                name, state, full=True, limit=2, cursor=cursor, call=call()
            )
            listed += tasks
        # Those of one millisecond come in the order of their names, which an upgrade changes.
        replies += sorted(listed, key=lambda task: task.id)
    for task_id in [*IDS, uuid_of(999)]:
        await tell(queue.get(task_id))
        await tell(queue.cancel(task_id, request_id="cancel"))
    for task_id in TASKS["moved"]:
        await tell(queue.reschedule(task_id, 20_000, request_id="move"))
    for task_id in TASKS["replaced"]:
        await tell(queue.add(task_id, b"new", delay_ms=30_000, request_id="replace",
                             on_conflict=OnConflict.REPLACE_IF_FINISHED))  # fmt: skip
    for ids in TASKS.values():
        await tell(queue.redrive(*ids, request_id="redrive"))
        items = [Settlement(task_id, tokens[task_id]) for task_id in ids if task_id in tokens]
        for settle in (jobs.ack, jobs.release):
            replies.append(errors(await settle(name, items, call())))
        replies.append(
            await jobs.enqueue(name, [new_task(each, each.encode()) for each in ids], call())
        )
    queue.clock.advance(12_000)
    replies.append(await queue.reap())
    await tell(queue.redrive_all("all"))
    queue.clock.advance(3_000_000)
    replies.append(await queue.promote())
    leases = sorted(await queue.retrieve(100), key=lambda lease: lease.task.id)
    replies += [
        (task.id, task.payload, task.headers, task.retry_policy, task.attempt, task.run)
        for task in (lease.task for lease in leases)
    ]
    for lease in leases:
        await queue.ack(lease)
    queue.clock.advance(3_600_001)
    replies.append(await queue.collect())
    replies.append((await queue.survey()).counts)
    assert_all_conserved(queue.server.sync)
    return [_without_receipts(each) for each in replies]


def _without_receipts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_receipts(each) for each in value]
    return (value.value, repr(value.error)) if hasattr(value, "receipt") else value


class Copies:
    """A store that can be set back."""

    def __init__(self, server: StoreServer) -> None:
        self.server = server
        self.keys = {key: server.read("DUMP", key) for key in server.read("KEYS", "*")}

    def put_back(self) -> None:
        """As it was at the start."""
        self.server.sync.flushall()
        for key, value in self.keys.items():
            self.server.read("RESTORE", key, 0, value)


async def test_at_no_step_can_clients_tell_how_far_it_is(store_server: StoreServer) -> None:
    first = await older_queue(store_server, promote_batch_count=1)
    tokens = await settle_all(first)
    now_ms = first.clock.store_ms
    await first.controlled_store.close()
    copies = Copies(store_server)
    old = {task_id.encode() for task_id in IDS}
    assert names_in(first) == old

    async def after(steps: int, *, upgrades: bool) -> tuple[list[Any], bool]:
        """What clients are replies after so many steps, and whether the last one was among them."""
        copies.put_back()
        clock = ManualClock(store_server.sync, now_ms)
        store = ControlledStore(store_server, Settings(promote_batch_count=1), clock=clock)
        try:
            queue, done = Queue(store), False
            await queue.store.topics.version(call())
            for _ in range(steps):
                assert not done
                # Each takes a number of the sequence, as another script does.
                if upgrades:
                    done = await queue.upgrade()
                else:
                    await queue.survey()
            if done:
                assert names_in(queue) == {name_of(task_id) for task_id in IDS}
                assert all(record[0] >= 128 for record in records_in(queue))
                assert not queue.server.sync.hexists(queue.key("control"), "moving")
            queue.store.scheduler_api._settings = Settings()
            return await use_all(queue, tokens), done
        finally:
            await store.close()

    steps, done = 0, False
    while not done:
        expected, _ = await after(steps, upgrades=False)
        found, done = await after(steps, upgrades=True)
        assert found == expected, f"after {steps} steps"
        steps += 1
    assert steps > len(IDS), "each step is one entry"
    store_server.sync.flushall()


# Under traffic -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_no_task_is_lost_or_doubled_under_traffic(
    store_server: StoreServer, seed: int
) -> None:
    rng = random.Random(seed)
    queue = await older_queue(store_server, promote_batch_count=rng.choice([1, 3, 20]))
    ids = [uuid_of(number) if number % 3 else f"task {number}" for number in range(240)]
    waiting = dict.fromkeys(ids, b"1")
    # Many of them due in the same millisecond.
    await queue.enqueue(*(new_task(each, b"1", delay_ms=rng.choice([0, 50, 50])) for each in ids))
    ended: Counter[str] = Counter()
    leases: dict[str, Any] = {}
    done, steps, fresh = False, 0, 0
    while not done or waiting or leases:
        queue.clock.advance(rng.choice([0, 0, 1, 20]))
        choice = rng.choice(["upgrade", "move", "take", "settle", "change", "add"])
        if choice == "upgrade" and not done:
            done, steps = await queue.upgrade(), steps + 1
        elif choice == "move":
            await queue.promote()
        elif choice == "take":
            for lease in await queue.retrieve(rng.randrange(1, 12), lease_ms=10_000_000):
                assert waiting.pop(lease.task.id) == lease.task.payload
                leases[lease.task.id] = lease
        elif choice == "settle" and leases:
            lease = leases.pop(rng.choice(sorted(leases)))
            if rng.random() < 0.7:
                await queue.ack(lease)
                ended[lease.task.id] += 1
            else:
                await queue.nack(lease, delay_ms=rng.choice([0, 5]))
                waiting[lease.task.id] = lease.task.payload
        elif choice == "change" and waiting:
            task_id = rng.choice(sorted(waiting))
            if rng.random() < 0.5:
                await queue.reschedule(task_id, 5, request_id=f"r{fresh}")
            else:
                assert not (await queue.cancel(task_id)).already
                del waiting[task_id]
                ended[task_id] += 1
        elif choice == "add" and fresh < 40:
            fresh += 1
            task_id = uuid_of(1_000 + fresh)
            await queue.add(task_id, b"2", delay_ms=rng.choice([0, 50]))
            waiting[task_id] = b"2"
            ids.append(task_id)
    assert ended == Counter(ids)
    assert names_in(queue) == {name_of(task_id) for task_id in ids}
    assert_all_conserved(queue.server.sync)
    await queue.controlled_store.close()


# Bounds ------------------------------------------------------------------------------------


async def test_tasks_of_one_moment_are_walked_once(store_server: StoreServer) -> None:
    """The new names go to the front of that moment, behind which the walk must not start again."""
    queue = await older_queue(store_server, promote_batch_count=10)
    ids = [uuid_of(number) if number % 2 else f"task {number}" for number in range(400)]
    await queue.enqueue(*(new_task(each, delay_ms=1_000) for each in ids))
    store_server.reset_stats()
    # Each step at whatever comes first among what is left; the last of them is a short one.
    steps = 0
    while not await queue.upgrade():
        steps += 1
        if steps % 3 == 0:
            await queue.cancel(ids[steps * 37 % len(ids)])
    assert 36 <= steps <= 41
    assert names_in(queue) == {name_of(task_id) for task_id in ids}
    commands = sum(store_server.commandstats().values())
    assert commands < 400 * 15, "no step looks at all that is there"
    await queue.controlled_store.close()


async def test_a_step_reads_a_bounded_number_of_bytes(store_server: StoreServer) -> None:
    queue = await older_queue(store_server, promote_batch_count=100)
    for number in range(9):
        await queue.add(uuid_of(number), b"x" * MIB, delay_ms=number)
    before = store_server.sync.info("stats")["total_net_output_bytes"]
    assert await upgrade(queue) == 3
    assert store_server.sync.info("stats")["total_net_output_bytes"] - before < MIB
    assert [record[0] for record in records_in(queue)] == [128] * 9
    await queue.controlled_store.close()


# What was put there by hand ----------------------------------------------------------------


@pytest.mark.parametrize("upgrades_first", [False, True])
async def test_entries_that_are_no_tasks_do_not_stop_it(
    store_server: StoreServer, upgrades_first: bool
) -> None:
    queue = await older_queue(store_server, promote_batch_count=3)
    await queue.add(uuid_of(1), b"good")
    read, due_ms = store_server.read, queue.clock.store_ms
    for number, root in enumerate(("tasks", "ready", "leases", "dead", "finished")):
        for member in (uuid_of(10 + number), f"orphaned {number}", b"\xff\x00"):
            read("ZADD", queue.key(root), due_ms, member)
    read("HSET", queue.key("payloads"), uuid_of(2), b"\xff")
    read("ZADD", queue.key("tasks"), due_ms, uuid_of(2))
    for field in ("odd", "odd:", "cancel:x:y", f"cancel:999:r:{uuid_of(3)}"):
        read("HSET", queue.key("requests"), field, b"?")
        read("ZADD", queue.key("request_expiry"), due_ms + 10**9, field)
    assert not await queue.upgrade()
    if upgrades_first:
        await upgrade(queue)
    await queue.promote()
    await queue.reap()
    assert [lease.task.payload for lease in await queue.retrieve()] == [b"good"]
    await queue.redrive_all()
    queue.clock.advance(3_600_001)
    await queue.collect()
    if not upgrades_first:
        await upgrade(queue)
    for root in ("tasks", "ready", "dead", "finished"):
        assert read("ZCARD", queue.key(root)) == 0, root
    assert read("ZRANGE", queue.key("leases"), 0, -1) == [name_of(uuid_of(1))]
    assert read("HLEN", queue.key("requests")) >= 4
    await queue.controlled_store.close()
    store_server.sync.flushall()


def test_the_shard_has_no_key_that_the_upgrade_does_not_know() -> None:
    """A further key that holds ids has to be walked too, or is written by its own names."""
    assert set(ROOTS) == {
        "control", "tasks", "ready", "leases", "payloads", "states", "dead", "finished",
        "requests", "request_expiry", "journal",
    }  # fmt: skip
