"""Waits for a condition of another process that no event reports."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

POLL_S = 0.05


class NotYetError(Exception):
    """Raised by a condition that does not hold yet, with what is missing."""


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
        condition: a function or a coroutine function; an attempt is cancelled at the limit.
        timeout_s: None: without limit.
        otherwise: what is wrong when the time is over; the error adds the limit, and the error of
            the last attempt.
        error: raised when the time is over, with that message.
        ignoring: errors of an attempt that count as "not yet", as NotYetError always does.
    """
    failure: Exception | None = None
    not_yet: tuple[type[Exception], ...] = (NotYetError, *ignoring)
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            while True:
                try:
                    answer = condition()
                    value = (
                        await cast("Awaitable[object]", answer)
                        if inspect.isawaitable(answer)
                        else answer
                    )
                except not_yet as reason:
                    failure = reason
                else:
                    failure = None
                    if value:
                        return value
                await asyncio.sleep(poll_s)
    except TimeoutError:
        if not limit.expired():
            raise
        last = f": {failure}" if failure is not None else ""
        raise error(f"{otherwise} within {timeout_s:g} s{last}") from None


__all__ = ["NotYetError", "eventually"]
