"""Calls for an event loop from other threads, which it takes together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Posted: TypeAlias = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""


class Mailbox:
    """Functions that one event loop calls, in the order in which other threads posted them.

    To wake an event loop costs more than what it is woken for here, so all that is posted before it
    wakes shares one wake-up.

    Args:
        loop: that calls them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Posted] = deque()
        self._woken = False

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Has the loop call a function, which should not raise. From any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self.post_all([(function, arguments)])

    def post_all(self, calls: Iterable[Posted]) -> None:
        """Likewise for several functions.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._calls.extend(calls)
        # Appended first: if the flag is still set, the loop has yet to look at what is there.
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._woken = False
        calls = self._calls
        try:
            # No more than were there: what is posted meanwhile must not keep the loop from others.
            for _ in range(len(calls)):
                function, arguments = calls.popleft()
                function(*arguments)
        finally:
            if calls and not self._woken:
                self._woken = True
                self.loop.call_soon(self._take)


class Outbox:
    """Posts to a mailbox what one event loop has said in one of its turns, all at once.

    Made and used in that loop.

    Args:
        on_closed: is called if the loop of the mailbox is closed.
    """

    def __init__(self, mailbox: Mailbox, on_closed: Callable[[RuntimeError], None]) -> None:
        self._mailbox = mailbox
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._calls: list[Posted] = []

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Has the other loop call a function, which should not raise."""
        self._calls.append((function, arguments))
        if len(self._calls) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Posts what waits, now."""
        calls, self._calls = self._calls, []
        try:
            if calls:
                self._mailbox.post_all(calls)
        except RuntimeError as error:
            self._on_closed(error)
