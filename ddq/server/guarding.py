"""The guard at one method: refuses calls, and ends those whose caller loses its access."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from ddq.access import Caller, Guard, Waiting, rule_of
from ddq.errors import DdqError
from ddq.metrics import Metrics
from ddq.server.ending import abort
from ddq.server.throttled_log import ThrottledLog

log = logging.getLogger(__name__)


class MethodGuard:
    """What the guard decides about the calls of one method.

    Args:
        path: SERVICE/NAME.
        guard: None: every client may do everything.
        metrics: where refused calls are counted.

    Raises:
        LookupError: the method has no rule, so that it is not known which scope it needs.
    """

    def __init__(self, path: str, guard: Guard | None, metrics: Metrics) -> None:
        self._path = path
        self._rule = rule_of(path)
        self._guard = None if self._rule.public else guard
        self._metrics = metrics
        self._log = ThrottledLog(log)

    async def caller(self, context: Any) -> Caller | None:
        """Who makes the call, None: that does not matter; ends the call if it is not known."""
        if self._guard is None:
            return None
        caller = self._guard.caller(context)
        if isinstance(caller, DdqError):
            self._note(context, caller)
            await abort(context, caller)
        return caller

    def denied(self, context: Any, caller: Caller | None, request: Any) -> DdqError | None:
        """Why a request of the caller is refused; None: it is allowed."""
        if self._guard is None or caller is None:
            return None
        error = self._guard.refusal(self._rule, caller, request)
        if error is not None:
            self._note(context, error)
        return error

    def subscribed(self, call: Waiting | None, request: Any) -> None:
        """A message of a stream that waits has named its topics."""
        if call is not None and not call.topics:
            call.topics = self._rule.named(request)

    async def watched(
        self, context: Any, request: Any, run: Callable[[Waiting | None], Awaitable[Any]]
    ) -> Any:
        """What ``run`` returns; ends the call when its caller loses what it needs.

        Args:
            request: of a call that has one.
            run: is given what the guard knows of a call that may last for long.
        """
        if self._guard is None or not self._rule.waits:
            return await run(None)
        topics = self._rule.named(request) if request is not None else None
        with self._guard.waiting(self._rule, context, topics) as call:
            try:
                return await run(call)
            except asyncio.CancelledError:
                if call.refused is None:
                    # The client is gone, its deadline has passed, or the server stops.
                    raise
                call.task.uncancel()
            # The handler may have been about to answer with an error: that answer is sent.
            with contextlib.suppress(grpc.aio.UsageError):
                await abort(context, call.refused)
            return None

    def _note(self, context: Any, error: DdqError) -> None:
        """Counts a call that is refused, and logs it now and then."""
        name = self._path.rpartition("/")[2]
        self._metrics.rpcs.labels(name, error.code.name, error.reason).inc()
        self._log.warning(
            error.reason,
            "refused a call of %(peer)s to %(method)s: %(error)s",
            {"peer": context.peer(), "method": self._path, "error": error},
        )
