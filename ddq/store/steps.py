"""A request of several steps: once one took effect, no error says that the request had none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from ddq.errors import DdqError, WriteOutcomeUnknown

T = TypeVar("T")


class Steps:
    """The steps that one request has taken so far.

    Args:
        request: what it does, for messages.
        began: whether an earlier step took effect already.
    """

    def __init__(self, request: str, *, began: bool = False) -> None:
        self._request = request
        self._has_effect = began

    async def take(self, step: Awaitable[T]) -> T:
        """Takes one step.

        Raises:
            WriteOutcomeUnknown: the step had no effect, and an earlier one had.
            DdqError: of the first step; or one that is not definite.
        """
        return (await self.take_all([step]))[0]

    async def take_all(self, steps: Iterable[Awaitable[T]]) -> list[T]:
        """Takes steps at the same time, all of them even if one fails.

        Raises:
            DdqError: as take.
        """
        results = await asyncio.gather(*steps, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        done = [result for result in results if not isinstance(result, BaseException)]
        self._has_effect = self._has_effect or bool(done)
        if errors:
            raise self.judged(*errors)
        return done

    def judged(self, *errors: BaseException) -> BaseException:
        """What is to be raised for these: the most uncertain of them."""
        for error in errors:
            if not isinstance(error, DdqError) or not error.definite:
                return error
        if not self._has_effect:
            return errors[0]
        unknown = WriteOutcomeUnknown(
            f"{self._request} was done in part, then: {errors[0]}; repeat it with the same ids"
        )
        unknown.__cause__ = errors[0]
        return unknown
