"""Refreshes what is known of the store: nodes are asked at once, and callers share a refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

from ddq.errors import DdqError, StoreUnreachable
from ddq.store.topology.node import Node

T = TypeVar("T")

# A node that is dead or hangs must not cost the others' answers.
ANSWER_TIMEOUT_S = 1.0
# What the slower ones get once most have answered. The newest among them is worth that much.
GRACE_S = 0.1
# From the end of one refresh to the next; a store in trouble is asked ten times a second, not more.
GAP_S = 0.1


class SharedRefresh:
    """Runs one refresh at a time: callers that need one meanwhile join it.

    Args:
        refresh: finds out again; raises DdqError when it cannot.
    """

    def __init__(self, refresh: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._refresh = refresh
        self._task: asyncio.Task[None] | None = None
        self._ended_s = float("-inf")

    async def join(self, deadline_s: float) -> None:
        """Waits for the refresh that runs, or for a new one.

        Raises:
            StoreUnreachable: it found nothing, or not by the deadline.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._paced(), name="ddq topology refresh")
            # All callers that wait may have gone when it fails.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._task
        try:
            async with asyncio.timeout_at(deadline_s):
                await asyncio.shield(task)
        except TimeoutError:
            raise StoreUnreachable("the deadline passed while the master was looked for") from None
        except DdqError as error:
            raise StoreUnreachable(error.message) from None
        except asyncio.CancelledError:
            if task.cancelled():
                raise StoreUnreachable("the server is stopping") from None
            raise

    async def _paced(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._ended_s + GAP_S - loop.time()))
        try:
            await self._refresh()
        finally:
            self._ended_s = loop.time()

    async def close(self) -> None:
        """Ends the look that runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Answers(Generic[T]):
    """What several nodes said.

    Attributes:
        given: of the nodes that answered.
        failures: of the others, why not.
    """

    def __init__(self) -> None:
        self.given: dict[Node, T] = {}
        self.failures: dict[Node, str] = {}

    def __str__(self) -> str:
        """Each node and what it said, for a message."""
        said = {node: str(answer) for node, answer in self.given.items()} | self.failures
        return "; ".join(f"{node}: {text}" for node, text in said.items())


async def ask_all(asks: Mapping[Node, Callable[[], Awaitable[T]]], enough_count: int) -> Answers[T]:
    """Asks all at once, and waits for all, or until enough have answered and the grace is over.

    Args:
        asks: by node; an ask raises Exception when it gets no answer.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + ANSWER_TIMEOUT_S
    answers: Answers[T] = Answers()
    tasks = {asyncio.ensure_future(_ask(ask)): node for node, ask in asks.items()}
    pending = set(tasks)
    in_grace = False
    try:
        while pending and (left_s := end_s - loop.time()) > 0:
            done, pending = await asyncio.wait(
                pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if error := task.exception():
                    answers.failures[tasks[task]] = str(error) or type(error).__name__
                else:
                    answers.given[tasks[task]] = task.result()
            if len(answers.given) >= enough_count and not in_grace:
                in_grace = True
                end_s = min(end_s, loop.time() + GRACE_S)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    for task in pending:
        answers.failures[tasks[task]] = "no answer in time"
    return answers


async def _ask(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
