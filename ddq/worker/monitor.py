"""Whether the program's event loop answers, and which handler blocks it if it does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable

log = logging.getLogger("ddq.worker")


class LoopMonitor:
    """Sends a message to the program's event loop again and again, from the worker's.

    Made in the program's loop, used in the worker's.

    Args:
        describe: the name of the handler that an asyncio task of the program's loop runs, or None
            if it runs none.
        limit_s: silence, in seconds, after which a warning is logged.
    """

    def __init__(
        self, describe: Callable[[asyncio.Task[object]], str | None], limit_s: float
    ) -> None:
        self._program = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._describe = describe
        self.limit_s = limit_s

    async def answers(self) -> None:
        """Returns as soon as the program's loop answers.

        Raises:
            RuntimeError: that loop is closed.
        """
        await self._ask().wait()

    async def check(self, on_silence: Callable[[], None]) -> None:
        """Returns when the loop answers, and warns if it takes longer than the limit.

        Args:
            on_silence: called when a tenth of the limit has passed.

        Raises:
            RuntimeError: that loop is closed.
        """
        answered = self._ask()
        if await _within(answered, self.limit_s / 10):
            return
        on_silence()
        if not await _within(answered, self.limit_s * 9 / 10):
            log.warning("%(complaint)s", {"complaint": self._complaint()})
            await answered.wait()

    def _ask(self) -> asyncio.Event:
        worker = asyncio.get_running_loop()
        answered = asyncio.Event()

        def answer() -> None:
            # The worker's loop may have been closed while the program's was blocked.
            with contextlib.suppress(RuntimeError):
                worker.call_soon_threadsafe(answered.set)

        self._program.call_soon_threadsafe(answer)
        return answered

    def _complaint(self) -> str:
        task = asyncio.current_task(self._program)
        handler = self._describe(task) if task is not None else None
        blocker = f"the handler {handler} blocks it" if handler else "something blocks it"
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - there is no public way
        where = f", at {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
        return (
            f"the program's event loop has not answered for {self.limit_s:g} s, a third of the "
            f"lease; {blocker}{where}. Code that blocks belongs into a plain function: handlers "
            "that are not async run in threads of their own"
        )


async def _within(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event is set by then."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
