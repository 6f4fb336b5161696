"""The helper that waits for other processes."""

from __future__ import annotations

import asyncio

import pytest

from chaos.eventually import NotYetError, eventually


async def test_the_first_true_answer_is_returned() -> None:
    answers = iter([0, "", None, "there"])
    assert await eventually(lambda: next(answers), 10, poll_s=0) == "there"


async def test_an_ignored_error_means_not_yet_and_any_other_is_raised() -> None:
    errors = iter([OSError("away"), TimeoutError("slow"), ValueError("broken")])

    async def attempt() -> bool:
        raise next(errors)

    with pytest.raises(ValueError, match="broken"):
        await eventually(attempt, 10, ignoring=(OSError,), poll_s=0)


async def test_the_error_names_the_limit_and_the_last_attempt() -> None:
    async def attempt() -> bool:
        raise OSError("away")

    with pytest.raises(LookupError, match=r"no master within 0.01 s: away"):
        await eventually(attempt, 0.01, "no master", error=LookupError, ignoring=(OSError,))
    with pytest.raises(TimeoutError, match=r"no master within 0.01 s$"):
        await eventually(lambda: False, 0.01, "no master")


async def test_an_attempt_that_hangs_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def attempt() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    with pytest.raises(TimeoutError):
        await eventually(attempt, 0.01)
    assert cancelled.is_set()


async def test_a_time_out_of_the_attempt_itself_is_not_the_limit() -> None:
    async def attempt() -> bool:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match=r"^of its own$"):
        await eventually(attempt, 10, "no master")


async def test_the_error_names_what_was_missing_last() -> None:
    async def attempt() -> bool:
        raise NotYetError("n2 has no link")

    with pytest.raises(LookupError, match=r"no master within 0.01 s: n2 has no link$"):
        await eventually(attempt, 0.01, "no master", error=LookupError)
