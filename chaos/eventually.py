"""Waits for a condition of another process that no event reports."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

POLL_S = 0.05


@overload
async def eventually(
    condition: Callable[[], Awaitable[T | None]],
    timeout_s: float | None,
    otherwise: str = ...,
    *,
    error: type[Exception] = ...,
    ignoring: tuple[type[Exception], ...] = ...,
    poll_s: float = ...,
) -> T: ...


@overload
async def eventually(
    condition: Callable[[], T | None],
    timeout_s: float | None,
    otherwise: str = ...,
    *,
    error: type[Exception] = ...,
    ignoring: tuple[type[Exception], ...] = ...,
    poll_s: float = ...,
) -> T: ...


async def eventually(
    condition: Callable[[], object],
    timeout_s: float | None,
    otherwise: str = "the condition did not hold",
    *,
    error: type[Exception] = TimeoutError,
    ignoring: tuple[type[Exception], ...] = (),
    poll_s: float = POLL_S,
) -> object:
    """Asks until the answer is true, and returns it.

    Args:
        condition: a function or a coroutine function; it is asked at least once, and an attempt
            that has begun is finished.
        timeout_s: None: without limit.
        otherwise: what is wrong when the time is over; the error adds the limit.
        error: raised when the time is over, with that message.
        ignoring: errors of an attempt that count as "not yet"; the last one is the cause of the
            error.
    """
    loop = asyncio.get_running_loop()
    end_s = None if timeout_s is None else loop.time() + timeout_s
    while True:
        failure: Exception | None = None
        try:
            answer = condition()
            value = (
                await cast("Awaitable[object]", answer) if inspect.isawaitable(answer) else answer
            )
        except ignoring as reason:
            failure = reason
        else:
            if value:
                return value
        if end_s is not None and loop.time() >= end_s:
            raise error(f"{otherwise} within {timeout_s:g} s") from failure
        await asyncio.sleep(poll_s)


__all__ = ["eventually"]
