"""How a process waits at its start for its store, in virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ddq.config import StartupError
from ddq.errors import (
    ClockUnsafe,
    DdqError,
    NotEnoughReplicas,
    RollbackDetected,
    StoreMalformed,
    StoreUnreachable,
    WriteOutcomeUnknown,
)
from ddq.store.startup import SAY_AGAIN_S, TRY_AGAIN_S, wait_for_store
from tests.stateful.virtual import run_virtually


async def outcome(
    error: DdqError, *, until_s: float, wait_s: float = 60.0, stop_s: float | None = None
) -> tuple[float, str, int]:
    """A store that answers with an error until a moment: when it ended, what it said, the tries."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    if stop_s is not None:
        loop.call_later(stop_s, stop.set)
    tries = 0

    async def check() -> None:
        nonlocal tries
        tries += 1
        if loop.time() < until_s:
            raise error

    try:
        await wait_for_store(check, "redis://store", wait_s, stop)
    except StartupError as caught:
        return loop.time(), str(caught), tries
    return loop.time(), "", tries


@pytest.mark.parametrize("kind", [StoreUnreachable, NotEnoughReplicas, WriteOutcomeUnknown])
def test_errors_of_a_starting_store_are_waited_for(
    kind: type[DdqError], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ended_s, said, tries = run_virtually(outcome(kind("not yet"), until_s=12.0))
    assert (ended_s, said) == (12.0, "")
    assert tries == 1 + 12.0 / TRY_AGAIN_S
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 + 12.0 // SAY_AGAIN_S
    assert lines[0] == "waiting for the store at redis://store, for up to 60 s more: not yet"
    assert "for up to 55 s more" in lines[1]


def test_a_store_that_never_answers_ends_the_wait_with_its_reason() -> None:
    ended_s, said, _ = run_virtually(outcome(StoreUnreachable("refused"), until_s=1e9, wait_s=10.0))
    assert 9.0 <= ended_s <= 10.0
    assert said == "the store at redis://store cannot be used, after 10 s: refused"


def test_a_wait_of_nothing_is_one_try() -> None:
    ended_s, said, tries = run_virtually(
        outcome(StoreUnreachable("refused"), until_s=1e9, wait_s=0.001)
    )
    assert (ended_s, tries) == (0.0, 1)
    assert said == "the store at redis://store cannot be used: refused"


@pytest.mark.parametrize("kind", [RollbackDetected, ClockUnsafe, StoreMalformed])
def test_errors_that_need_an_operator_are_not_waited_for(kind: type[DdqError]) -> None:
    ended_s, said, tries = run_virtually(outcome(kind("look"), until_s=1e9))
    assert (ended_s, tries) == (0.0, 1)
    assert "look" in said


@pytest.mark.parametrize(
    "said",
    [
        "one:6379: WRONGPASS invalid username-password pair or user is disabled.",
        "one:6379: Authentication required.",
        "User ddq has no permissions to run the 'role' command",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
    ],
)
def test_a_store_that_refuses_this_process_is_not_waited_for(said: str) -> None:
    ended_s, message, tries = run_virtually(outcome(StoreUnreachable(said), until_s=1e9))
    assert (ended_s, tries) == (0.0, 1)
    assert said in message


def test_a_wait_ends_when_the_process_is_to_stop() -> None:
    ended_s, said, _ = run_virtually(outcome(StoreUnreachable("no"), until_s=1e9, stop_s=3.2))
    assert ended_s == 3.2
    assert "stopped while it waited" in said
