"""Group commit: what goes out together, and what a caller may conclude when it goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import redis.exceptions

from ddq.errors import DdqError
from ddq.store.commit import ConnectionRetiredError, GroupCommit
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.scripts import Script, default_scripts
from tests.support.queue import error_of

SCRIPT: Script = default_scripts()["survey"]


class HeldConnection:
    """Notes what is sent, and answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[list[Command]] = []
        self.arrived = asyncio.Event()
        self.answers: asyncio.Queue[list[Reply] | Exception] = asyncio.Queue()
        self.closed = False

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        self.sent.append(list(commands))
        self.arrived.set()
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer or [b"ok"] * len(commands)

    async def close(self) -> None:
        self.closed = True


def deadline(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def run(commit: GroupCommit, name: str, deadline_s: float | None = None) -> asyncio.Task[Reply]:
    when = deadline() if deadline_s is None else deadline_s
    return asyncio.create_task(commit.run(SCRIPT, [name], [], when))


def names(pipeline: list[Command]) -> list[object]:
    return [command[3] for command in pipeline]


async def settled() -> None:
    """Lets every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_requests_that_arrive_during_a_pipeline_are_sent_together() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    tasks = [run(commit, "a")]
    await connection.arrived.wait()
    tasks += [run(commit, name) for name in "bcd"]
    await settled()
    connection.answers.put_nowait([])
    connection.answers.put_nowait([])
    await asyncio.gather(*tasks)
    assert [names(pipeline) for pipeline in connection.sent] == [["a"], ["b", "c", "d"]]
    await commit.close()
    assert connection.closed


async def test_a_caller_that_has_gone_is_not_sent() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    first, gone, late, last = (
        run(commit, "first"),
        run(commit, "gone"),
        run(commit, "late", deadline(0.0)),
        run(commit, "last"),
    )
    gone.cancel()
    await connection.arrived.wait()
    await settled()
    assert (await error_of(late)).reason == "STORE_UNREACHABLE"
    connection.answers.put_nowait([])
    connection.answers.put_nowait([])
    await asyncio.gather(first, last)
    assert [name for pipeline in connection.sent for name in names(pipeline)] == ["first", "last"]
    await commit.close()


async def test_one_more_than_the_queue_holds_is_overloaded() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 2)
    under_way = run(commit, "under way")
    await connection.arrived.wait()
    waiting = [run(commit, name) for name in "ab"]
    await settled()
    error = await error_of(run(commit, "c"))
    assert (error.reason, error.definite) == ("OVERLOADED", True)
    for _ in range(2):
        connection.answers.put_nowait([])
    await asyncio.gather(under_way, *waiting)
    await commit.close()


@pytest.mark.parametrize(
    ("failure", "reason", "definite"),
    [
        (NotSentError("refused"), "STORE_UNREACHABLE", True),
        (ReplyLostError("reset"), "WRITE_OUTCOME_UNKNOWN", False),
    ],
)
async def test_a_lost_answer_is_unknown_and_an_unsent_request_is_not(
    failure: Exception, reason: str, definite: bool
) -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    task = run(commit, "a")
    connection.answers.put_nowait(failure)
    error = await error_of(task)
    assert (error.reason, error.definite) == (reason, definite)
    # It continues with the next.
    connection.answers.put_nowait([])
    await run(commit, "b")
    await commit.close()


async def test_a_deadline_that_passes_while_it_is_under_way_is_unknown() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    task = run(commit, "a", deadline(0.05))
    await connection.arrived.wait()
    error = await error_of(task)
    assert (error.reason, error.definite) == ("WRITE_OUTCOME_UNKNOWN", False)
    connection.answers.put_nowait([])
    await commit.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed"), "STORE_FULL"),
        (redis.exceptions.ResponseError("OOM command not allowed"), "STORE_FULL"),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough"), "NOT_ENOUGH_REPLICAS"),
        (redis.exceptions.ReadOnlyError("You can't write"), "STORE_UNREACHABLE"),
        (redis.exceptions.ResponseError("MISCONF Errors writing"), "STORE_UNREACHABLE"),
        (redis.exceptions.ResponseError("BUSY running a script"), "STORE_UNREACHABLE"),
        (redis.exceptions.ResponseError("user_script:1: attempt to"), "STORE_MALFORMED"),
    ],
)
async def test_the_stores_own_errors_have_a_meaning_and_harm_only_their_request(
    error: Exception, reason: str
) -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    first = run(commit, "first")
    await connection.arrived.wait()
    bad, good = run(commit, "bad"), run(commit, "good")
    await settled()
    connection.answers.put_nowait([])
    connection.answers.put_nowait([error, b"fine"])
    await first
    raised: DdqError = await error_of(bad)
    # A script that fails midway may have written.
    assert (raised.reason, raised.definite) == (reason, reason != "STORE_MALFORMED")
    await good
    await commit.close()


async def test_an_unknown_script_is_sent_with_its_text_and_only_that() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    first = run(commit, "first")
    await connection.arrived.wait()
    known, unknown = run(commit, "known"), run(commit, "unknown")
    await settled()
    connection.answers.put_nowait([])
    connection.answers.put_nowait([b"fine", redis.exceptions.NoScriptError("NOSCRIPT")])
    connection.answers.put_nowait([])
    await asyncio.gather(first, known, unknown)
    assert [(command[0], command[3]) for command in connection.sent[2]] == [("EVAL", "unknown")]
    assert connection.sent[2][0][1] == SCRIPT.source
    await commit.close()


async def test_requests_that_wait_when_the_server_stops_are_refused_as_not_sent() -> None:
    connection = HeldConnection()
    commit = GroupCommit(connection, 5.0, 100)
    under_way = run(commit, "a")
    await connection.arrived.wait()
    waiting = run(commit, "b")
    await settled()
    await commit.close()
    assert (await error_of(under_way)).reason == "WRITE_OUTCOME_UNKNOWN"
    with pytest.raises(ConnectionRetiredError):
        await waiting
