"""Running a handler: async ones in the program's event loop, plain functions in threads."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any

from ddq import tracing
from ddq.worker.execution import Execution
from ddq.worker.forks import end_fork
from ddq.worker.job import Job, Snooze
from ddq.worker.mailbox import Mailbox, Outbox
from ddq.worker.outcome import CANCELLED, NOT_STARTED, RETURNED, Outcome, raised
from ddq.worker.threads import DaemonThreads

Handler = Callable[[Job], Awaitable[Any]] | Callable[[Job], Any]


class Handlers:
    """Starts and cancels runs of one handler.

    Made in the program's event loop, used from the worker's.

    Args:
        program: of the program's event loop.
        concurrency: threads for a handler that is a plain function.
        owns_interrupts: Ctrl-C does not raise KeyboardInterrupt in this thread while the worker
            runs, so one that comes out of an async handler is the handler's own.
    """

    def __init__(
        self, handler: Handler, program: Mailbox, concurrency: int, *, owns_interrupts: bool
    ) -> None:
        if tracing.current is not None:
            handler = tracing.current.handler(handler, (Snooze,))
        self._handler = handler
        self._owns_interrupts = owns_interrupts
        self._process = os.getpid()
        self._mailbox = program
        self._program = program.loop
        self._runs: dict[asyncio.Task[Any], Execution] = {}
        self._ended: list[tuple[Execution, Outcome]] = []
        self._worker: Mailbox | None = None
        self._on_end: Callable[[Execution, Outcome], None] = lambda *_: None
        self.is_async = _is_async(handler)
        self._threads = None if self.is_async else DaemonThreads(concurrency, "ddq-worker")

    def report_to(self, worker: Mailbox, on_end: Callable[[Execution, Outcome], None]) -> None:
        """Says how handlers ended to ``on_end``, which the worker's event loop calls."""
        self._worker, self._on_end = worker, on_end

    def start(self, execution: Execution, program: Outbox) -> None:
        """Starts the handler.

        Args:
            program: of the worker's event loop, to the program's.
        """
        if self._threads is None:
            program.post(self._run_in_loop, execution, self._handler)
        else:
            self._threads.submit(lambda: self._run_in_thread(execution))

    def cancel(self, execution: Execution) -> None:
        """Asks an async handler to stop; a plain function has to look at its job."""
        with contextlib.suppress(RuntimeError):
            self._program.call_soon_threadsafe(self._cancel_in_loop, execution)

    def describe(self, task: asyncio.Task[Any]) -> str | None:
        """What a task of the program's loop runs for the worker; None: nothing."""
        execution = self._runs.get(task)
        if execution is None:
            return None
        name = getattr(self._handler, "__qualname__", type(self._handler).__qualname__)
        return f"{name} of {execution.job.topic}/{execution.job.id}"

    async def join(self, timeout_s: float) -> None:
        """In the program's loop: lets async handlers end that were cancelled, for so many seconds.

        A handler that stops a process, or closes a connection, would otherwise be cancelled a
        second time by the end of the program.
        """
        if self._runs:
            await asyncio.wait(set(self._runs), timeout=timeout_s)

    def close(self) -> None:
        """Ends the threads that are idle, and leaves the others to the process."""
        if self._threads is not None:
            self._threads.close()

    def _end(self, execution: Execution, outcome: Outcome) -> None:
        assert self._worker is not None
        # A thread that was left behind may end after the worker's loop was closed.
        with contextlib.suppress(RuntimeError):
            self._worker.post(self._on_end, execution, outcome)

    # In one of the threads

    def _run_in_thread(self, execution: Execution) -> None:
        if not execution.begin():
            self._end(execution, NOT_STARTED)
            return
        try:
            result = self._handler(execution.job)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is a failure of its task
            end_fork(self._process, error)
            self._end(execution, raised(error))
            return
        end_fork(self._process, None)
        if not inspect.isawaitable(result):
            self._end(execution, RETURNED)
            return
        # A plain function that returns a coroutine, as wrappers of async ones do: taken for done,
        # it would never have run.
        try:
            self._mailbox.post(self._run_in_loop, execution, lambda _: result)
        except RuntimeError:
            self._end(execution, CANCELLED)

    # In the program's loop

    def _run_in_loop(self, execution: Execution, handler: Handler) -> None:
        task = self._program.create_task(self._guarded(handler, execution), name="ddq job")
        self._runs[task] = execution
        task.add_done_callback(self._ended_in_loop)

    async def _guarded(self, handler: Handler, execution: Execution) -> Outcome:
        # Not when the task is made: all those that are made in one turn of the loop wait for the
        # first of them, if that one blocks.
        if not execution.begin():
            return NOT_STARTED
        task = asyncio.current_task()
        assert task is not None
        outcome = await self._run_guarded(handler, execution, task)
        end_fork(self._process, outcome.error)
        return outcome

    async def _run_guarded(
        self, handler: Handler, execution: Execution, task: asyncio.Task[Any]
    ) -> Outcome:
        try:
            await handler(execution.job)
        except asyncio.CancelledError as error:
            # A handler may also raise this itself, or get it from a task of its own.
            return CANCELLED if task.cancelling() else raised(error)
        except KeyboardInterrupt as error:
            if not self._owns_interrupts:
                end_fork(self._process, error)
                raise
            return raised(error)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is a failure of its task
            return raised(error)
        return RETURNED

    def _ended_in_loop(self, task: asyncio.Task[Outcome]) -> None:
        execution = self._runs.pop(task)
        stopped = task.cancelled() or task.exception() is not None
        outcome = CANCELLED if stopped else task.result()
        self._ended.append((execution, outcome))
        if len(self._ended) == 1:
            # A program that ends cancels all tasks of its loop at once. One turn later the worker
            # has been asked to stop, and does not take the cancellation for a failure of the
            # handler.
            self._program.call_soon(self._report)

    def _report(self) -> None:
        ended, self._ended = self._ended, []
        assert self._worker is not None
        with contextlib.suppress(RuntimeError):
            self._worker.post_all((self._on_end, end) for end in ended)

    def _cancel_in_loop(self, execution: Execution) -> None:
        for task, running in self._runs.items():
            if running is execution:
                task.cancel()


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )
