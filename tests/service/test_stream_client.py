"""Client.stream_retrieve against servers: delivery, a server that stops, and one that is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from ddq.client import Client, Lease, LeaseStream, NewTask
from ddq.config import Settings
from ddq.errors import InvalidArgument
from ddq.store.topology import Node
from tests.support.forwarder import Forwarder, forwarding
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer

LEASE = timedelta(seconds=60)

pytestmark = pytest.mark.timeout(60)


async def take(stream: LeaseStream, count: int) -> list[Lease]:
    """The next leases, which may arrive in several replies."""
    leases: list[Lease] = []
    while len(leases) < count:
        leases += await stream.read()
    return leases


async def states(client: Client) -> tuple[int, int, int]:
    """How many tasks are ready, leased, and finished."""
    counts = (await client.stats("mail")).counts
    return counts.ready, counts.leased, counts.succeeded


async def test_tasks_arrive_as_they_become_due_and_the_rest_is_released(
    server: RunningServer,
) -> None:
    async with Client(server.address) as client:
        await client.create_topic("mail")
        async with client.stream_retrieve("mail", lease=LEASE) as stream:
            stream.add_credit(4)
            await client.enqueue("mail", b"later", delay=timedelta(milliseconds=200))
            (lease,) = await take(stream, 1)
            assert (lease.payload, lease.attempt) == (b"later", 1)
            await client.ack(lease)
            await client.enqueue_batch("mail", [NewTask(b"x") for _ in range(5)])
            leases = await take(stream, 3)
            assert len({lease.id for lease in leases}) == 3
            assert await states(client) == (2, 3, 1)
            await client.ack(leases.pop())
            stream.add_credit(1)
            await stream._changed.wait()
            assert await states(client) == (1, 3, 2)
        # The one that had arrived and was not read; the others belong to this caller.
        assert await states(client) == (2, 2, 2)


async def test_a_refusal_is_raised_by_read(server: RunningServer) -> None:
    async with Client(server.address) as client:
        stream = client.stream_retrieve("mail", lease=timedelta(milliseconds=1))
        stream.add_credit(1)
        with pytest.raises(InvalidArgument, match="lease_duration"):
            await stream.read()
        assert await stream.close() == []


async def test_it_follows_a_server_that_stops_to_the_next_one(store_server: StoreServer) -> None:
    settings = Settings(drain_ms=20_000)
    async with (
        serving(store_server, settings) as first,
        serving(store_server, settings) as second,
        Client(f"ipv4:{first.address},{second.address}") as client,
    ):
        await client.create_topic("mail")
        async with client.stream_retrieve("mail", lease=LEASE) as stream:
            stream.add_credit(10)
            await client.enqueue("mail", b"before")
            assert [lease.payload for lease in await take(stream, 1)] == [b"before"]
            first.stop.set()
            await first.task
            await client.enqueue("mail", b"after")
            (lease,) = await take(stream, 1)
            assert (lease.payload, lease.attempt) == (b"after", 1)


@pytest.fixture
async def link(server: RunningServer) -> AsyncIterator[Forwarder]:
    """A way to the server, on which replies may get lost."""
    host, _, port = server.address.partition(":")
    async with forwarding(Node(host, int(port))) as forwarders:
        yield forwarders[Node(host, int(port))]


async def test_replies_that_were_cut_off_in_the_middle_are_not_lost(
    server: RunningServer, link: Forwarder
) -> None:
    async with Client(server.address) as direct, Client(str(link.node)) as client:
        await direct.create_topic("mail")
        async with client.stream_retrieve("mail", lease=LEASE) as stream:
            stream.add_credit(10)
            await direct.enqueue("mail", b"first")
            await take(stream, 1)
            link.swallows = True
            for number in range(3):
                await direct.enqueue("mail", str(number).encode())
            # Leased, in replies that do not arrive.
            while (await states(direct))[1] < 4:
                pass
            await link.cut()
            link.swallows = False
            leases = await take(stream, 3)
            assert sorted(lease.payload for lease in leases) == [b"0", b"1", b"2"]
            assert {lease.attempt for lease in leases} == {1}
            assert stream.credit == 6
            await direct.enqueue("mail", b"last")
            assert [lease.payload for lease in await take(stream, 1)] == [b"last"]
