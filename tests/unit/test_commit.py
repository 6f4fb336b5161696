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
from ddq.store.barrier import DataNodes, Policy, Timing
from ddq.store.commit import PIPELINE_MAX_COUNT, ConnectionRetiredError, GroupCommit
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.pending import Committed
from ddq.store.script_errors import NotHereError, store_error
from ddq.store.scripts import default_scripts
from ddq.task import Durability

SCRIPT = default_scripts()["survey"]
Answer = Callable[[Sequence[Command]], list[Reply]]


def echo(commands: Sequence[Command]) -> list[Reply]:
    """Each script answers with its last argument, WAIT with 1, ROLE as a master of one replica."""
    answers: dict[object, Reply] = {"WAIT": 1, "WAITAOF": [1, 1], "ROLE": role("one")}
    return [answers.get(command[0], command[-1]) for command in commands]


def role(*replicas: str) -> Reply:
    return [b"master", 7, [[name.encode(), b"1", b"7"] for name in replicas]]


def policy(mode: Durability, nodes: int, *, fsync: bool = False, window_s: float = 30.0) -> Policy:
    return Policy(
        mode,
        fsync,
        DataNodes(nodes),
        Timing(window_s, settle_s=30.0, down_after_s=2 * window_s, election_s=60.0),
    )


HEARTBEAT = default_scripts()["heartbeat"]


def guarded(connection: FakeConnection, of: Policy) -> GroupCommit:
    return GroupCommit(connection, 5, 100, of, heartbeat=HEARTBEAT)


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
    """Lets all tasks run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def failure(commit: GroupCommit, timeout_s: float = 30) -> DdqError:
    with pytest.raises(DdqError) as caught:
        await run(commit, "a", timeout_s)
    await commit.close()
    return caught.value


async def test_waiting_requests_are_sent_together() -> None:
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


async def test_a_short_deadline_takes_no_time_from_the_others() -> None:
    """A send that ended with a caller's deadline would cost its neighbours their answers, and the
    connection its chain of barriers."""

    class Timed(FakeConnection):
        async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
            given_s.append(timeout_s)
            return await super().send(commands, timeout_s)

    given_s: list[float] = []
    connection = Timed()
    commit = GroupCommit(connection, 5, 100)
    for deadlines_s in ((1, 3), (3, 1), (1, 30)):
        await asyncio.gather(*(run(commit, "a", timeout_s) for timeout_s in deadlines_s))
    assert given_s == [5, 5, 5]
    await commit.close()


async def test_the_barrier_is_in_the_same_send_and_last() -> None:
    connection = FakeConnection()
    commit = guarded(connection, policy(Durability.ALL, 2))
    assert await run(commit, "a") == Committed("a", 1)
    (commands,) = connection.sent
    assert [command[0] for command in commands] == ["EVALSHA", "WAIT", "ROLE"]
    await commit.close()


async def test_without_replicas_no_request_waits() -> None:
    connection = FakeConnection()
    commit = GroupCommit(connection, 5, 100)
    assert await run(commit, "a") == Committed("a", 0)
    assert [command[0] for command in connection.sent[0]] == ["EVALSHA"]
    await commit.close()


@pytest.mark.parametrize("acked", [0, 1, redis.exceptions.ResponseError("UNBLOCKED")])
async def test_too_few_replicas_is_unknown(acked: object) -> None:
    connection = FakeConnection(
        lambda commands: [*["done"] * (len(commands) - 2), acked, role("one", "two")]
    )
    error = await failure(guarded(connection, policy(Durability.ALL, 3)), timeout_s=0.05)
    assert type(error) is WriteOutcomeUnknown


@pytest.mark.parametrize("answer", [[b"slave", b"h", 1, b"connected", 7], RuntimeError("closed")])
async def test_a_demoted_node_confirms_nothing(answer: object) -> None:
    connection = FakeConnection(lambda commands: [*["done"] * (len(commands) - 2), 1, answer])
    troubles: list[str] = []
    commit = GroupCommit(
        connection, 5, 100, policy(Durability.ALL, 2), heartbeat=HEARTBEAT,
        on_trouble=troubles.append,
    )  # fmt: skip
    error = await failure(commit)
    assert type(error) is WriteOutcomeUnknown
    assert troubles


@pytest.mark.parametrize(
    "refusal",
    [redis.exceptions.ReadOnlyError("READONLY You can't write"), redis.exceptions.NoScriptError()],
)
async def test_a_refusal_of_a_deposed_master_is_definite(refusal: Exception) -> None:
    # A coordinated failover pauses writes, and refuses those that waited when it is over.
    def answer(commands: Sequence[Command]) -> list[Reply]:
        return ["done", refusal, 0, [b"slave", b"ip", 1, b"connected", 7]]

    connection = FakeConnection(answer)
    connection.free.clear()
    commit = guarded(connection, policy(Durability.QUORUM, 3))
    asked = [run(commit, value) for value in ("ran", "refused")]
    await turns()
    connection.free.set()
    with pytest.raises(WriteOutcomeUnknown):
        await asked[0]
    with pytest.raises(StoreUnreachable):
        await asked[1]
    assert len(connection.sent) == 1
    await commit.close()


async def test_a_reply_is_held_until_a_heartbeat_finds_all_replicas() -> None:
    """WAIT covers everything that its connection wrote before."""
    acked = iter([0, 1, 2])
    connection = FakeConnection(
        lambda commands: [*[command[-1] for command in commands[:-2]], next(acked), role("a", "b")]
    )
    commit = guarded(connection, policy(Durability.ALL, 3, window_s=0.01))
    assert await run(commit, "x") == Committed("x", 2)
    kinds = [[command[0] for command in commands] for commands in connection.sent]
    assert kinds == [["EVALSHA", "WAIT", "ROLE"], *[["EVAL", "WAIT", "ROLE"]] * 2]
    assert [commands[0][1:] for commands in connection.sent[1:]] == [
        (HEARTBEAT.source, 1, "ddq:heartbeat:{key}")
    ] * 2
    await commit.close()


async def test_the_time_of_a_held_reply_is_reported() -> None:
    acked = iter([2, 0, 2])
    connection = FakeConnection(
        lambda commands: [*[command[-1] for command in commands[:-2]], next(acked), role("a", "b")]
    )
    held: list[float] = []
    commit = GroupCommit(
        connection, 5, 100, policy(Durability.ALL, 3, window_s=0.01),
        heartbeat=HEARTBEAT, on_held=held.append,
    )  # fmt: skip
    await run(commit, "confirmed by its own send")
    assert held == []
    connection.free.clear()
    one = run(commit, "held")
    await asyncio.sleep(0)
    connection.free.set()
    await one
    assert len(held) == 1
    assert 0 < held[0] < 30
    await commit.close()


async def test_a_heartbeat_goes_where_the_last_answer_came_from() -> None:
    """A slot that has moved away would answer every heartbeat with MOVED, and hold all replies."""
    moved = redis.exceptions.MovedError("1 elsewhere:1")

    def answer(commands: Sequence[Command]) -> list[Reply]:
        replies = [moved if "{gone}" in str(command) else b"OK" for command in commands[:-2]]
        return [*replies, 2 if commands[0][0] == "EVAL" else 0, role("a", "b")]

    connection = FakeConnection(answer)
    commit = guarded(connection, policy(Durability.ALL, 3, window_s=0.01))
    deadline_s = asyncio.get_running_loop().time() + 30
    for tag in ("here", "still"):
        await commit.run(SCRIPT, [f"ddq:control:{{{tag}}}"], [], deadline_s)
        (beat, *_) = connection.sent[-1]
        assert beat == ("EVAL", HEARTBEAT.source, 1, f"ddq:heartbeat:{{{tag}}}")
        with pytest.raises(NotHereError):
            await commit.run(SCRIPT, ["ddq:control:{gone}"], [], deadline_s)
    await commit.close()


async def test_a_held_reply_is_unknown_once_its_connection_is_gone() -> None:
    """Another connection's WAIT would not speak of it."""
    sends = iter([0, ReplyLostError("reset"), 2])

    def answer(commands: Sequence[Command]) -> list[Reply]:
        given = next(sends)
        if isinstance(given, Exception):
            raise given
        return [*[command[-1] for command in commands[:-2]], given, role("a", "b")]

    commit = guarded(FakeConnection(answer), policy(Durability.ALL, 3, window_s=0.01))
    error = await failure(commit)
    assert type(error) is WriteOutcomeUnknown
    assert "reset" in error.message


async def test_a_send_that_wrote_nothing_does_not_confirm_that_replicas_follow() -> None:
    """WAIT then answers for an older write, from memory."""

    def answer(commands: Sequence[Command]) -> list[Reply]:
        refused = redis.exceptions.ResponseError("OOM command not allowed")
        replies = [refused if command[-1] == "full" else command[-1] for command in commands[:-2]]
        return [*replies, 2 if len(connection.sent) > 1 else 0, role("a", "b")]

    connection = FakeConnection(answer)
    commit = guarded(connection, policy(Durability.ALL, 3, window_s=60))
    held = run(commit, "held")
    await turns()
    with pytest.raises(StoreFull):
        await run(commit, "full")
    assert (await held).replicas_acked == 2
    assert [commands[0][0] for commands in connection.sent] == ["EVALSHA", "EVALSHA", "EVAL"]
    await commit.close()


async def test_a_heartbeat_that_is_refused_is_not_sent_again_at_once() -> None:
    """Else a store without enough replicas would be asked as fast as it refuses."""

    def answer(commands: Sequence[Command]) -> list[Reply]:
        if commands[0][0] == "EVALSHA":
            return ["done", 0, role("a", "b")]
        beats.set()
        return [redis.exceptions.ResponseError("NOREPLICAS Not enough"), 0, role("a", "b")]

    beats = asyncio.Event()
    connection = FakeConnection(answer)
    commit = guarded(connection, policy(Durability.ALL, 3, window_s=0.04))
    held = run(commit, "held")
    await beats.wait()
    sent = len(connection.sent)
    await turns()
    assert len(connection.sent) == sent
    await commit.close()
    with pytest.raises(WriteOutcomeUnknown):
        await held


async def test_an_internal_error_leaves_no_request_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Sequence[Command]) -> list[Reply]:
        raise KeyError("a mistake")

    connection = FakeConnection(broken)
    commit = GroupCommit(connection, 5, 100)
    async with asyncio.timeout(5):
        with pytest.raises(WriteOutcomeUnknown, match="internal error"):
            await run(commit, "a")
    assert "the group commit has failed" in caplog.text
    connection.answer = echo
    assert (await run(commit, "b")).reply == "b"
    await commit.close()


async def test_fsync_waits_for_disks_and_the_masters_own_counts() -> None:
    connection = FakeConnection()
    commit = guarded(connection, policy(Durability.QUORUM, 1, fsync=True))
    answers = iter([[0, 0], [1, 0]])
    connection.answer = lambda commands: [
        *[command[-1] for command in commands[:-2]], next(answers), role()
    ]  # fmt: skip
    connection.free.set()
    commit._sender._policy = policy(Durability.QUORUM, 1, fsync=True, window_s=0.01)
    assert await run(commit, "a") == Committed("a", 0)
    # The master asks the replicas only when a WAITAOF arrives, and once a second.
    steps_ms = (2, 8, 32, 128, 512, 818)
    assert connection.sent[0][1:-1] == [("WAITAOF", 1, 0, step_ms) for step_ms in steps_ms]
    assert len(connection.sent) == 2
    await commit.close()


async def test_a_request_that_was_not_sent_is_moved_to_another_connection() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100)
    sent = run(commit, "sent")
    await turns()
    waiting = run(commit, "waiting")
    await turns()
    await commit.close()
    with pytest.raises(WriteOutcomeUnknown):
        await sent
    with pytest.raises(ConnectionRetiredError):
        await waiting
    with pytest.raises(ConnectionRetiredError):
        await run(commit, "later")


@pytest.mark.parametrize(
    "reply",
    [
        redis.exceptions.MovedError("1 10.0.0.2:7000"),
        redis.exceptions.AskError("1 10.0.0.2:7000"),
        redis.exceptions.TryAgainError("on its way"),
    ],
)
async def test_keys_that_are_elsewhere_are_looked_for_there(
    reply: redis.exceptions.RedisError,
) -> None:
    commit = GroupCommit(FakeConnection(lambda commands: [reply] * len(commands)), 5, 100)
    with pytest.raises(NotHereError) as caught:
        await run(commit, "a")
    assert caught.value.reply is reply
    await commit.close()


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


async def test_waiting_requests_are_bounded_in_bytes() -> None:
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100, queue_max_bytes=100)
    first = run(commit, "x" * 200)
    await turns()
    with pytest.raises(Overloaded, match="200 bytes"):
        await run(commit, "a")
    connection.free.set()
    await first
    connection.free.clear()
    waiting = [run(commit, "x" * 50), run(commit, "x" * 50)]
    await turns()
    with pytest.raises(Overloaded):
        await run(commit, "a")
    connection.free.set()
    await asyncio.gather(*waiting)
    assert (await run(commit, "a")).reply == "a"
    await commit.close()


async def test_a_request_whose_caller_has_gone_keeps_no_bytes() -> None:
    """It stays in the queue until its turn, which may be seconds away."""
    connection = FakeConnection()
    connection.free.clear()
    commit = GroupCommit(connection, 5, 100, queue_max_bytes=100)
    first = run(commit, "a")
    await turns()
    gone = run(commit, "x" * 99)
    await turns()
    gone.cancel()
    await turns()
    (left,) = commit._queue
    assert not left.args
    last = run(commit, "y" * 99)
    connection.free.set()
    assert [(await task).reply for task in (first, last)] == ["a", "y" * 99]
    assert [command[-1] for commands in connection.sent for command in commands] == ["a", "y" * 99]
    assert commit._queued_bytes == 0
    await commit.close()


async def test_replies_that_are_held_count_with_their_bytes() -> None:
    def answer(commands: Sequence[Command]) -> list[Reply]:
        replies = [["OK", b"x" * 1_000, 7] for _ in commands[:-2]]
        return [*replies, acked, role("a", "b")]

    acked = 0
    commit = GroupCommit(
        FakeConnection(answer), 5, 100, policy(Durability.ALL, 3), heartbeat=HEARTBEAT,
        queue_max_bytes=500,
    )  # fmt: skip
    held = run(commit, "a")
    await turns()
    assert commit.unconfirmed_count == 1
    with pytest.raises(Overloaded, match="bytes wait"):
        await run(commit, "b")
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    assert commit._queued_bytes == 0
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
def test_an_error_of_the_store_for_a_script_has_its_kind(
    error: redis.exceptions.RedisError, kind: type[DdqError]
) -> None:
    assert type(store_error(SCRIPT, error)) is kind
