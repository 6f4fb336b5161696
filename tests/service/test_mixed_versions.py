"""A server of 0.1.0 beside one of this version, on one store: each serves what the other wrote.

The program of 0.1.0 is the wheel that `make chaos-upgrade` upgrades from; its scripts have the
record layout that 0.2.0 has too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from chaos.systems.ddq.previous_release import START, WHEEL
from ddq.cli import main
from ddq.client import UNLIMITED_ATTEMPTS, Client, Lease, NewTask, OnConflict, RetryPolicy
from ddq.config import Settings
from ddq.errors import DdqError, InvalidArgument, Unimplemented
from ddq.store.keys import TOPICS_CONFIRMED, ShardId
from ddq.task import TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.server import RunningServer, scheduling
from tests.support.store import StoreServer

SECOND = timedelta(seconds=1)
SOON = timedelta(milliseconds=50)
LIMIT = 20 * SECOND


@pytest.fixture
async def old(server: RunningServer, store_server: StoreServer) -> AsyncIterator[Client]:
    """A client of a server of 0.1.0 on the store of ``server``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", START, str(WHEEL), "serve", "--listen", address,
        "--store", store_server.url, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with Client(address) as client:
            # Repeated by the client until the server is there.
            async for _ in client.list_topics(timeout_s=30):
                pass
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.fixture
async def new(server: RunningServer, store_server: StoreServer) -> AsyncIterator[Client]:
    # As in a store that 0.1.0 wrote; a new store has a format that it does not know.
    store_server.sync.hset(TOPICS_CONFIRMED, "format", 1)
    async with Client(server.address) as client:
        await client.create_topic("jobs")
        yield client


async def take(client: Client, *ids: str) -> dict[str, Lease]:
    """Leases of these tasks, whenever they become due."""
    leases: dict[str, Lease] = {}
    while leases.keys() != set(ids):
        for lease in await client.retrieve("jobs", max_tasks=10, lease=LIMIT, wait=LIMIT):
            leases[lease.id] = lease
    return leases


async def test_each_serves_what_the_other_wrote(
    new: Client, old: Client, store_server: StoreServer
) -> None:
    await new.enqueue(
        "jobs", b"u", task_id="unlimited", retry_policy=RetryPolicy(UNLIMITED_ATTEMPTS)
    )
    for task_id in ("snoozed", "again"):
        await new.enqueue("jobs", task_id.encode(), task_id=task_id)
    for number in range(2):
        await new.enqueue(
            "jobs", f"event {number}".encode(), task_id="debounced", delay=SOON,
            on_conflict=OnConflict.DEBOUNCE, debounce_limit=LIMIT,
        )  # fmt: skip
    leases = await take(new, "unlimited", "snoozed", "again", "debounced")
    await new.snooze(leases["snoozed"], SOON)
    made = await new.run_again(leases["again"], delay=SOON, payload=b"the next")
    await new.nack(leases["unlimited"], delay=SOON)
    await new.ack(leases["debounced"])

    # 0.1.0 promotes, leases and fails them, and leaves what it does not know alone.
    leases = await take(old, "unlimited", "snoozed", "again")
    assert leases["again"].payload == b"the next"
    assert leases["again"].task.incarnation == made.incarnation
    assert (leases["snoozed"].attempt, leases["unlimited"].attempt) == (1, 2)
    for lease in leases.values():
        nacked = await old.nack(lease, delay=SOON)
        assert nacked.state is TaskState.SCHEDULED

    # This version continues with them.
    leases = await take(new, "unlimited", "snoozed", "again")
    assert (leases["snoozed"].attempt, leases["unlimited"].attempt) == (2, 3)
    policy = leases["unlimited"].task.retry_policy
    assert policy is not None
    assert policy.max_attempts == UNLIMITED_ATTEMPTS
    await new.snooze(leases["snoozed"], SOON)
    (lease,) = (await take(new, "snoozed")).values()
    assert lease.attempt == 2
    for settled in (lease, leases["unlimited"], leases["again"]):
        await new.ack(settled)
    assert_all_conserved(store_server.sync)


async def test_0_1_refuses_what_it_does_not_know_and_nothing_happens(
    new: Client, old: Client
) -> None:
    await new.enqueue("jobs", b"x", task_id="a")
    lease = (await take(new, "a"))["a"]
    with pytest.raises(Unimplemented):
        await old.snooze(lease, SECOND)
    with pytest.raises(Unimplemented):
        await old.run_again(lease, delay=SECOND)
    with pytest.raises(InvalidArgument, match="max_attempts"):
        await old.enqueue("jobs", b"x", task_id="b", retry_policy=RetryPolicy(UNLIMITED_ATTEMPTS))
    (result,) = await old.enqueue_batch(
        "jobs", [NewTask(b"x", "a", on_conflict=OnConflict.DEBOUNCE, debounce_limit=SECOND)]
    )
    assert isinstance(result.error, InvalidArgument)
    task = await new.get_task("jobs", "a")
    assert (task.state, task.attempt, task.snoozes) == (TaskState.LEASED, 1, 0)
    await new.ack(lease)


async def test_a_stream_of_a_server_that_has_none_retrieves(new: Client, old: Client) -> None:
    async with old.stream_retrieve("jobs", lease=LIMIT, poll=LIMIT) as stream:
        stream.add_credit(2)
        for task_id in ("a", "b", "c"):
            await new.enqueue("jobs", b"x", task_id=task_id)
        found = [lease.id for lease in await stream.read()]
        if len(found) == 1:
            found += [lease.id for lease in await stream.read()]
        assert len({*found}) == 2
        stream.add_credit(1)
        found += [lease.id for lease in await stream.read()]
        assert sorted(found) == ["a", "b", "c"]
        # The Retrieve under way at the end takes no task after that.
        stream.add_credit(1)
    await new.enqueue("jobs", b"x", task_id="d")
    assert list(await take(new, "d")) == ["d"]


async def test_0_1_is_refused_where_the_store_is_upgraded_and_nothing_happens(
    new: Client, old: Client, store_server: StoreServer
) -> None:
    ids = [str(uuid.uuid4()), "not a uuid"]
    for task_id in ids:
        await old.enqueue("jobs", task_id.encode(), task_id=task_id, delay=SOON)
    control = ShardId("jobs", 0).key("control")
    command = ["store", "upgrade", "--store", store_server.url, "--yes"]
    assert await asyncio.to_thread(main, command) == 0
    async with scheduling(store_server, Settings(sweep_interval_ms=200)):
        # It does so by itself at its next look.
        while store_server.sync.hmget(control, "format", "moving") != [b"2", None]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for request in (
        old.enqueue("jobs", b"x", task_id="late", timeout_s=1),
        old.retrieve("jobs", max_tasks=1, wait=0 * SECOND, timeout_s=1),
        old.cancel("jobs", ids[0], timeout_s=1),
    ):
        with pytest.raises(DdqError, match="use a newer ddq"):
            await request
    assert store_server.sync.hlen(ShardId("jobs", 0).key("payloads")) == len(ids)
    assert {task_id: lease.payload for task_id, lease in (await take(new, *ids)).items()} == {
        task_id: task_id.encode() for task_id in ids
    }
    assert_all_conserved(store_server.sync)
