"""Calls that the server can end by itself, before it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio


class OpenCalls:
    """The calls of one kind that have reached their handler."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    def end(self) -> None:
        """Answers all of them with UNAVAILABLE, and those that still arrive."""
        self._ended = True
        while self._tasks:
            self._tasks.pop().cancel()

    async def run(self, context: Any, handle: Callable[[], Awaitable[Any]]) -> Any:
        """Returns what ``handle`` returns, unless the call is ended first.

        Args:
            context: of the call that the current task handles.
            handle: the handler, with its arguments.
        """
        task = asyncio.current_task()
        assert task is not None
        if not self._ended:
            self._tasks.add(task)
            try:
                return await handle()
            except asyncio.CancelledError:
                if task in self._tasks:
                    # The client is gone, or its deadline has passed.
                    raise
                task.uncancel()
            finally:
                self._tasks.discard(task)
        # The handler may have been about to answer with an error: that answer is sent.
        with contextlib.suppress(grpc.aio.UsageError):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        return None
