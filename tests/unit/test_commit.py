"""Group commit: who travels together, and what each failure means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
import redis.exceptions

from ddq.errors import (
    DdqError,
    NotEnoughReplicas,
    Overloaded,
    StoreFull,
    StoreMalformed,
    StoreUnreachable,
    WriteOutcomeUnknown,
)
from ddq.store.commit import PIPELINE_MAX_COUNT, Committed, GroupCommit, store_error
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.scripts import default_scripts

SCRIPT = default_scripts()["survey"]
Answer = Callable[[Sequence[Command]], list[Reply]]


def echo(commands: Sequence[Command]) -> list[Reply]:
    """Each script answers with its last argument, WAIT with 1."""
    return [1 if command[0] == "WAIT" else command[-1] for command in commands]


class FakeConnection:
    """Answers when it is let, and notes what it was sent."""

    def __init__(self, answer: Answer = echo) -> None:
        self.sent: list[list[Command]] = []
        self.answer = answer
        self.free = asyncio.Event()
        self.free.set()
        self.closed = False

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        self.sent.append(list(commands))
        await self.free.wait()
        return self.answer(commands)

    async def close(self) -> None:
        """See Connection.close."""
        self.closed = True


def run(commit: GroupCommit, value: str, timeout_s: float = 30) -> asyncio.Task[Committed]:
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    return asyncio.create_task(commit.run(SCRIPT, ["key"], [value], deadline_s))


async def turns() -> None:
    """Lets everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def failure(commit: GroupCommit, timeout_s: float = 30) -> DdqError:
    with pytest.raises(DdqError) as caught:
        await run(commit, "a", timeout_s)
    await commit.close()
    return caught.value


async def test_what_waits_together_goes_out_together() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100)
    first = run(commit, "a")
    await turns()
    later = [run(commit, value) for value in ("b", "c", "d")]
    await turns()
    connection.free.set()
    assert (await first).reply == "a"
    assert [(await task).reply for task in later] == ["b", "c", "d"]
    assert [len(commands) for commands in connection.sent] == [1, 3]
    await commit.close()
    assert connection.closed


async def test_a_pipeline_is_bounded() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 10_000)
    first = run(commit, "first")
    await turns()
    many = [run(commit, str(n)) for n in range(PIPELINE_MAX_COUNT + 1)]
    await turns()
    connection.free.set()
    assert [(await task).reply for task in many] == [str(n) for n in range(len(many))]
    await first
    assert [len(commands) for commands in connection.sent] == [1, PIPELINE_MAX_COUNT, 1]
    await commit.close()


async def test_one_send_takes_so_many_bytes_and_one_larger_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddq.store.commit.PIPELINE_MAX_BYTES", 100)
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 10_000)
    sizes = (1, 60, 40, 1, 300, 99)
    asked = []
    for size in sizes:
        asked.append(run(commit, "x" * size))
        await turns()
    connection.free.set()
    assert [len(str((await task).reply)) for task in asked] == list(sizes)
    sent = [[len(str(command[-1])) for command in commands] for commands in connection.sent]
    assert sent == [[1], [60, 40], [1], [300], [99]]
    await commit.close()


async def test_who_is_in_a_hurry_takes_no_time_from_the_others() -> None:
    """A send that ended with the first deadline would leave the others without an answer."""

    class Timed(FakeConnection):
        async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
            given_s.append(timeout_s)
            return await super().send(commands, timeout_s)

    given_s: list[float] = []
    connection = Timed()
    commit = GroupCommit(connection, 5, 100)
    for deadlines_s in ((1, 3), (3, 1), (1, 30)):
        await asyncio.gather(*(run(commit, "a", timeout_s) for timeout_s in deadlines_s))
    assert [round(timeout_s) for timeout_s in given_s] == [3, 3, 5]
    await commit.close()


async def test_the_barrier_is_in_the_same_send_and_last() -> None:
    connection = FakeConnection()
    commit = GroupCommit(connection, 5, 100, replicas_count=1)
    assert await run(commit, "a") == Committed("a", 1)
    (commands,) = connection.sent
    assert [command[0] for command in commands] == ["EVALSHA", "WAIT"]
    await commit.close()


async def test_without_replicas_nobody_waits() -> None:
    connection = FakeConnection()
    commit = GroupCommit(connection, 5, 100)
    assert await run(commit, "a") == Committed("a", 0)
    assert [command[0] for command in connection.sent[0]] == ["EVALSHA"]
    await commit.close()


@pytest.mark.parametrize("acked", [0, 1, redis.exceptions.ResponseError("UNBLOCKED")])
async def test_too_few_replicas_is_unknown(acked: object) -> None:
    connection = FakeConnection(lambda commands: [*["done"] * (len(commands) - 1), acked])
    error = await failure(GroupCommit(connection, 5, 100, replicas_count=2))
    assert type(error) is WriteOutcomeUnknown


@pytest.mark.parametrize(
    ("problem", "kind"),
    [(NotSentError("refused"), StoreUnreachable), (ReplyLostError("reset"), WriteOutcomeUnknown)],
)
async def test_a_lost_reply_is_unknown_and_a_send_that_failed_is_not(
    problem: Exception, kind: type[DdqError]
) -> None:
    def fail(_: Sequence[Command]) -> list[Reply]:
        raise problem

    error = await failure(GroupCommit(FakeConnection(fail), 5, 100))
    assert type(error) is kind
    assert error.definite is (kind is StoreUnreachable)


async def test_a_deadline_that_passes_before_the_send_is_definite_and_after_it_is_not() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100)
    sent = run(commit, "sent", timeout_s=0.05)
    await turns()
    waiting = run(commit, "waiting", timeout_s=0.05)
    with pytest.raises(WriteOutcomeUnknown):
        await sent
    with pytest.raises(StoreUnreachable):
        await waiting
    connection.free.set()
    # What is out of time is not sent after all.
    assert (await run(commit, "next")).reply == "next"
    assert [command[-1] for commands in connection.sent for command in commands] == ["sent", "next"]
    await commit.close()


async def test_too_many_are_refused_before_anything_is_sent() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 1)
    first = run(commit, "a")
    await turns()
    second = run(commit, "b")
    await turns()
    with pytest.raises(Overloaded):
        await run(commit, "c")
    connection.free.set()
    await asyncio.gather(first, second)
    await commit.close()


async def test_a_script_that_the_store_does_not_know_is_sent_as_text_once() -> None:
    def forgetful(commands: Sequence[Command]) -> list[Reply]:
        return [
            redis.exceptions.NoScriptError("NOSCRIPT") if command[0] == "EVALSHA" else "done"
            for command in commands
        ]

    connection = FakeConnection(forgetful)
    commit = GroupCommit(connection, 5, 100)
    assert (await run(commit, "a")).reply == "done"
    assert [commands[0][:2] for commands in connection.sent] == [
        ("EVALSHA", SCRIPT.sha1), ("EVAL", SCRIPT.source),
    ]  # fmt: skip
    await commit.close()


async def test_one_script_that_fails_harms_no_other() -> None:
    def second_fails(commands: Sequence[Command]) -> list[Reply]:
        return [
            redis.exceptions.ResponseError("user_script:1: boom") if command[-1] == "b" else "done"
            for command in commands
        ]

    commit = GroupCommit(FakeConnection(second_fails), 5, 100)
    good, bad = run(commit, "a"), run(commit, "b")
    assert (await good).reply == "done"
    with pytest.raises(StoreMalformed, match="boom"):
        await bad
    await commit.close()


async def test_closing_tells_those_who_wait() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100)
    sent = run(commit, "sent")
    await turns()
    waiting = run(commit, "waiting")
    await turns()
    await commit.close()
    # At once, and not at their deadline.
    async with asyncio.timeout(5):
        with pytest.raises(WriteOutcomeUnknown):
            await sent
        with pytest.raises(StoreUnreachable):
            await waiting


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed"), StoreFull),
        (redis.exceptions.ResponseError("OOM command not allowed"), StoreFull),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas"), NotEnoughReplicas),
        (redis.exceptions.ReadOnlyError("You can't write"), StoreUnreachable),
        (redis.exceptions.BusyLoadingError("loading"), StoreUnreachable),
        (redis.exceptions.ResponseError("MISCONF Errors writing to the AOF"), StoreUnreachable),
        (redis.exceptions.ResponseError("user_script:7: attempt to index"), StoreMalformed),
    ],
)
def test_what_the_store_says_about_a_script(
    error: redis.exceptions.RedisError, kind: type[DdqError]
) -> None:
    assert type(store_error(SCRIPT, error)) is kind
