"""LeaseStream against calls that do as a test says: credit, failures, and the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ddq.client import Client, Lease, LeaseStream, streaming
from ddq.errors import (
    InvalidArgument,
    NotConnected,
    OutcomeUnknown,
    PermissionDenied,
    StoreUnreachable,
    TransportError,
    Unimplemented,
)
from tests.client.queue import lease
from tests.client.streams import FakeSource, leased

pytestmark = pytest.mark.timeout(20)

MOST_BYTES = 1_000


def make(source: FakeSource, **options: Any) -> LeaseStream:
    numbers = itertools.count(1)
    settings = {"max_bytes": MOST_BYTES, "poll": timedelta(seconds=7), **options}
    return LeaseStream(source, ["mail"], lambda: f"id{next(numbers)}", **settings)


def ids(leases: list[Lease]) -> list[str]:
    return [each.id for each in leases]


async def until(condition: Callable[[], bool]) -> None:
    """Turns of the loop, until something holds; the test's timeout ends it otherwise."""
    while not condition():  # noqa: ASYNC110 - what it waits for are steps of the stream, not events
        await asyncio.sleep(0)


# Credit


async def test_nothing_is_asked_for_without_credit() -> None:
    source = FakeSource()
    stream = make(source)
    assert await stream.read(0.01) == []
    assert await stream.close() == []
    assert source.calls == []


async def test_credit_is_given_and_used_up_once() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(3)
    stream.add_credit(1)
    call = await source.call()
    assert (call.credit, call.credit_bytes) == (4, MOST_BYTES)
    call.reply(leased("a"), leased("b"))
    assert ids(await stream.read()) == ["a", "b"]
    assert stream.credit == 2
    call.reply(leased("c"))
    assert ids(await stream.read()) == ["c"]
    stream.add_credit(1)
    await until(lambda: call.credit == 5)
    assert stream.credit == 2


async def test_small_credits_wait_while_the_server_has_more_left() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(10)
    call = await source.call()
    for _ in range(9):
        stream.add_credit(1)
        await asyncio.sleep(0)
    assert call.credit == 10
    stream.add_credit(1)
    await until(lambda: call.credit == 20)
    assert len(call.sent) == 2, "all of it in one message"
    stream.add_credit(1)
    # With nothing left there any amount is sent.
    call.reply(*(leased(str(number)) for number in range(20)))
    await until(lambda: call.credit == 21)


async def test_no_more_credit_than_a_server_accepts_is_open() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(25_000)
    call = await source.call()
    await asyncio.sleep(0)
    assert call.credit == 10_000
    call.reply(*(leased(str(number)) for number in range(6_000)))
    await until(lambda: call.credit == 16_000)


async def test_bytes_are_given_back_when_they_were_read() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(10)
    call = await source.call()
    call.reply(leased("a", b"x" * 490, k="value"), leased("b", b"x" * 100))
    await until(lambda: stream.credit == 8)
    await asyncio.sleep(0)
    assert call.credit_bytes == MOST_BYTES, "they are not read yet"
    await stream.read()
    await until(lambda: call.credit_bytes > MOST_BYTES)
    assert call.credit_bytes == MOST_BYTES + 490 + len("k") + len("value") + 4 + 100
    assert call.credit == 10


@pytest.mark.parametrize("tasks", [0, -1])
async def test_credit_that_is_none_is_refused(tasks: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make(FakeSource()).add_credit(tasks)


@pytest.mark.parametrize("max_bytes", [0, 64 * 2**20 + 1])
async def test_bytes_out_of_bounds_are_refused(max_bytes: int) -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(InvalidArgument, match="max_bytes"):
            client.stream_retrieve("mail", max_bytes=max_bytes)


# Failures


async def test_replies_that_may_be_lost_are_asked_for_and_then_it_subscribes_again() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(5)
    call = await source.call()
    call.reply(leased("a"))
    assert ids(await stream.read()) == ["a"]
    source.recalled = {f"{call.stem}/2": [lease("b"), lease("c")], f"{call.stem}/3": [lease("d")]}
    call.end(TransportError("UNAVAILABLE: the connection was reset"))
    found: list[str] = []
    while len(found) < 3:
        found += ids(await stream.read())
    assert found == ["b", "c", "d"]
    second = await source.call()
    assert [each["request_id"] for each in source.retrieves] == [
        f"{call.stem}/{number}" for number in (2, 3, 4)
    ]
    assert [each["max_tasks"] for each in source.retrieves] == [4, 2, 1]
    assert second.stem != call.stem
    assert second.credit == stream.credit == 1, "what was recalled has used up its credit"


async def test_a_recall_whose_outcome_is_unknown_is_repeated_with_its_id() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(1)
    call = await source.call()
    source.recalled = {f"{call.stem}/1": [lease("a")]}
    source.retrieve_errors = [OutcomeUnknown("reset")]
    call.end(TransportError("UNAVAILABLE: the connection was reset"))
    assert ids(await stream.read()) == ["a"]
    assert {each["request_id"] for each in source.retrieves} == {f"{call.stem}/1"}
    assert len(source.calls) == 1, "no credit is left"


async def test_nothing_is_lost_where_the_server_says_that_it_leased_nothing() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(2)
    call = await source.call()
    call.end(StoreUnreachable("away"))
    assert (await source.call()).credit == 2
    assert source.retrieves == []


async def test_nothing_can_be_lost_where_the_server_had_no_credit() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(1)
    call = await source.call()
    call.reply(leased("a"))
    call.end(TransportError("UNAVAILABLE: the connection was reset"))
    await stream.read()
    stream.add_credit(1)
    await source.call()
    assert source.retrieves == []


@pytest.mark.parametrize("draining", [False, True])
async def test_it_subscribes_again_after_an_end_in_good_order(draining: bool) -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(2)
    call = await source.call()
    call.reply(leased("a"))
    if draining:
        call.reply(draining=True)
    call.end()
    assert (await source.call()).credit == 1
    assert ids(await stream.read()) == ["a"]
    assert source.retrieves == [], "nothing was lost"


async def test_it_keeps_trying_to_connect() -> None:
    source = FakeSource()
    source.open_errors = [NotConnected("refused"), NotConnected("refused")]
    stream = make(source)
    stream.add_credit(1)
    call = await source.call()
    assert stream.failures == 2
    call.reply(leased("a"))
    assert ids(await stream.read()) == ["a"]
    assert stream.failures == 0


async def test_it_ends_with_an_error_that_will_not_go_away() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(2)
    call = await source.call()
    call.reply(leased("a"))
    call.end(PermissionDenied("not for you"))
    assert ids(await stream.read()) == ["a"]
    for _ in range(2):
        with pytest.raises(PermissionDenied):
            await stream.read()
    assert stream.has_ended


async def test_a_call_is_renewed_in_good_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "RENEW_S", 0.01)
    source = FakeSource()
    stream = make(source)
    stream.add_credit(2)
    call = await source.call()
    await call.closed.wait()
    # Credit that comes now is for the next call.
    stream.add_credit(7)
    call.reply(leased("a"))
    call.end()
    assert ids(await stream.read()) == ["a"]
    assert (await source.call()).credit == 8
    assert call.credit == 2
    assert source.retrieves == []


async def test_a_call_that_does_not_end_is_cut_off_and_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "RENEW_S", 0.01)
    monkeypatch.setattr(streaming, "END_S", 0.01)
    source = FakeSource()
    stream = make(source)
    stream.add_credit(1)
    call = await source.call()
    source.recalled = {f"{call.stem}/1": [lease("a")]}
    assert ids(await stream.read()) == ["a"]
    assert call.cancelled


# Where there is no StreamRetrieve


async def test_a_server_without_it_is_asked_by_retrieve() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(3)
    call = await source.call()
    source.recalled = {"id2": [lease("a")], "id3": [lease("b"), lease("c")]}
    call.end(Unimplemented("what is that"))
    assert ids(await stream.read()) == ["a"]
    assert ids(await stream.read()) == ["b", "c"]
    assert [each["wait"] for each in source.retrieves] == [timedelta(seconds=7)] * 2
    assert [each["max_tasks"] for each in source.retrieves] == [3, 2]
    assert len(source.calls) == 1


async def test_after_a_retrieve_that_failed_the_next_server_may_have_it() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(2)
    call = await source.call()
    source.retrieve_errors = [OutcomeUnknown("reset")]
    call.end(Unimplemented("what is that"))
    await until(lambda: len(source.retrieves) == 1)
    asked = source.retrieves[0]["request_id"]
    source.recalled = {asked: [lease("a")]}
    assert ids(await stream.read()) == ["a"]
    assert source.retrieves[1]["request_id"] == asked
    assert (await source.call()).credit == 1


async def test_it_ends_where_there_is_no_retrieve_either() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(3)
    call = await source.call()
    source.retrieve_errors = [Unimplemented("nor that")]
    call.end(Unimplemented("what is that"))
    with pytest.raises(Unimplemented, match="nor that"):
        await stream.read()


# The end


async def test_close_returns_what_had_arrived_and_leases_nothing_more() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(5)
    call = await source.call()
    call.reply(leased("a"))
    await until(lambda: stream.credit == 4)
    closing = asyncio.ensure_future(stream.close())
    await call.closed.wait()
    call.reply(leased("b"))
    call.end()
    assert ids(await closing) == ["a", "b"]
    assert stream.failures == 0
    assert source.retrieves == []
    assert await stream.read() == []
    assert stream.has_ended
    with pytest.raises(RuntimeError):
        stream.add_credit(1)


async def test_leases_of_a_reply_that_was_lost_at_the_end_are_asked_for() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(5)
    call = await source.call()
    closing = asyncio.ensure_future(stream.close())
    await call.closed.wait()
    source.recalled = {
        f"{call.stem}/1": [lease("a"), lease("b")],
        # A new one, which no lost reply had: nothing was lost behind it.
        f"{call.stem}/2": [lease("c")],
    }
    call.end(TransportError("UNAVAILABLE: the connection was reset"))
    assert ids(await closing) == ["a", "b", "c"]
    assert [each["max_tasks"] for each in source.retrieves] == [1, 1]


async def test_a_retrieve_that_is_under_way_at_the_end_is_asked_what_it_leased() -> None:
    source = FakeSource()
    stream = make(source)
    stream.add_credit(5)
    call = await source.call()
    call.end(Unimplemented("what is that"))
    await source.asked.wait()
    source.recalled = {source.retrieves[0]["request_id"]: [lease("a")]}
    assert ids(await stream.close()) == ["a"]
    assert source.retrieves[0]["request_id"] == source.retrieves[1]["request_id"]


async def test_a_block_releases_what_was_not_read() -> None:
    source = FakeSource()
    async with make(source) as stream:
        stream.add_credit(5)
        call = await source.call()
        call.reply(leased("a"))
        async for leases in stream:
            assert ids(leases) == ["a"]
            break
        call.reply(leased("b"))
        call.end()
    assert source.released == ["b"]
