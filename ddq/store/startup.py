"""How a process waits at its start for a store that does not answer yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ddq.config import StartupError
from ddq.errors import DdqError, NotEnoughReplicas, StoreUnreachable, WriteOutcomeUnknown

log = logging.getLogger(__name__)

TRY_AGAIN_S = 0.5
"""From one failure to the next try."""
SAY_AGAIN_S = 5.0
"""From one log line to the next."""

_MAY_PASS = (StoreUnreachable, NotEnoughReplicas, WriteOutcomeUnknown)
"""What a store that is being started answers. Anything else needs a person."""
_NEEDS_A_PERSON = (
    "no permissions",
    "NOPERM",
    "WRONGPASS",
    "NOAUTH",
    "invalid username-password pair",
    "Authentication required",
    "certificate verify failed",
)
"""Words of servers and driver: a store that says so is there, and refuses this process."""


async def wait_for_store(
    check: Callable[[], Awaitable[None]], store: str, wait_s: float, stop: asyncio.Event
) -> None:
    """Returns when ``check`` does, which is tried again while the store does not answer.

    Args:
        store: names the store in messages, without its password.
        wait_s: the last try begins before this time is over.
        stop: ends the wait.

    Raises:
        StartupError: the store did not answer in time, or cannot be used.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    end_s, say_s = began_s + wait_s, began_s
    while True:
        try:
            await check()
            return
        except DdqError as error:
            now_s = loop.time()
            left_s = end_s - now_s
            if not _may_pass(error) or left_s <= TRY_AGAIN_S:
                waited = f", after {now_s - began_s:.0f} s" if now_s - began_s >= 1 else ""
                raise StartupError(
                    f"the store at {store} cannot be used{waited}: {error}"
                ) from None
            if now_s >= say_s:
                say_s = now_s + SAY_AGAIN_S
                log.warning(
                    "waiting for the store at %(store)s, for up to %(left_s).0f s more: %(error)s",
                    {"store": store, "left_s": left_s, "error": error},
                )
        try:
            async with asyncio.timeout(TRY_AGAIN_S):
                await stop.wait()
        except TimeoutError:
            continue
        raise StartupError(f"stopped while it waited for the store at {store}")


def _may_pass(error: DdqError) -> bool:
    """Whether the store may answer otherwise in a moment."""
    refuses = any(words in error.message for words in _NEEDS_A_PERSON)
    return isinstance(error, _MAY_PASS) and not refuses
