"""How the gRPC server stops: one call of its ``stop`` at a time, and never an interrupted one.

``grpc.aio.Server.stop`` frees the server at its end. Another ``stop`` that still waits, and whose
time runs out in the same moment, cancels the calls of the freed server, and the process ends in
SIGSEGV. A ``stop`` that is cancelled while it waits for its last calls leaves a server behind that
no later ``stop`` can free. So a drain is not shortened by a second ``stop``: the calls that keep
the first one waiting are ended instead.

``stop`` also cancels the calls that have arrived and have not been handed to a handler yet. gRPC
hands over one at a time, so a busy server always has some. While replies are kept back, clients
that wait for them send nothing new, and the calls that have arrived reach their handlers; then the
server stops, and the replies go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc.aio

from ddq.server.open_calls import OpenCalls
from ddq.server.rpc import RunningCalls

T = TypeVar("T")

SETTLE_MAX_S = 0.25
"""Longest time for which replies are kept back."""

LINGER_S = 0.5
"""Time that a reply has to reach its client after the last handler has returned."""


async def drain(
    server: grpc.aio.Server,
    running: RunningCalls,
    calls: OpenCalls,
    streams: OpenCalls,
    drain_s: float,
    *,
    leave: Callable[[], None] = lambda: None,
) -> None:
    """Stops the server: it takes no new calls, and lets those that run finish for ``drain_s``.

    If this is cancelled, all calls are ended at once. It returns when the server has stopped, also
    then.

    Args:
        running: the calls that are waited for.
        calls: those that have an end of their own.
        streams: those of health and reflection, which have none; they are ended when nothing else
            runs.
        drain_s: in seconds.
        leave: is called first; it leaves a port that other processes share.
    """
    stopping = asyncio.create_task(_stop(server, running, drain_s, leave), name="ddq drain")
    idle = asyncio.create_task(running.end(), name="ddq running calls")
    try:
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        # The last replies, and the last status of health, are on their way.
        await asyncio.wait({stopping}, timeout=LINGER_S)
        streams.end()
        await asyncio.wait({stopping})
    except asyncio.CancelledError:
        calls.end()
        streams.end()
        raise
    finally:
        idle.cancel()
        await uninterrupted(stopping)


async def _stop(
    server: grpc.aio.Server, running: RunningCalls, drain_s: float, leave: Callable[[], None]
) -> None:
    leave()
    running.hold()
    await running.settle(min(SETTLE_MAX_S, drain_s))
    stopping = asyncio.create_task(server.stop(drain_s), name="ddq drain")
    # It has taken its first step then: what arrives from now on is refused before it is a call, and
    # clients send that elsewhere by themselves.
    await asyncio.sleep(0)
    running.release()
    await stopping


async def uninterrupted(work: asyncio.Task[T] | Coroutine[Any, Any, T]) -> T:
    """Waits until ``work`` is done, however often the wait is cancelled, and returns its result.

    Raises:
        CancelledError: the wait was cancelled; ``work`` was not, and is done.
    """
    task = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        raise interruption from task.exception()
    return task.result()
