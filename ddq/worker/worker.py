"""The worker: gets leases, keeps them alive while handlers run, and ends the attempts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from ddq.client import Client
from ddq.config import DEFAULTS, Settings
from ddq.worker.control import Control, Reports
from ddq.worker.handlers import Handler, Handlers
from ddq.worker.job import Job, Verdict
from ddq.worker.mailbox import Mailbox
from ddq.worker.monitor import LoopMonitor
from ddq.worker.options import WorkerOptions
from ddq.worker.signals import sigint_cannot_raise, stop_on_signals

JOIN_S = 10.0
"""How long run() waits for cancelled handlers after their tasks were handed back, in seconds."""

_CLOCK_SKEW = timedelta(milliseconds=Settings().max_clock_skew_ms)


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done so far; it changes in the event loop of run() only.

    Attributes:
        delivered: leases it got; always the sum of the verdicts and of what runs now.
        early: of those, delivered before their due time by the store's clock.
        running: handlers at work, or leases about to be ended.
    """

    delivered: int = 0
    early: int = 0
    running: int = 0
    verdicts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))


class Worker:
    """Leases tasks of some topics and runs a handler for each.

    A handler that returns acknowledges its task; one that raises ends the attempt, with the
    exception as the task's last error. ``raise Retry(delay=…)`` and ``raise DeadLetter(…)`` say
    more exactly what comes next. It may be async, or a plain function, which then runs in a
    thread::

        async with Client("127.0.0.1:50051") as client:
            await Worker(client, "mail", send_mail, concurrency=10).run()

    **Code that blocks belongs into a plain function.** In an async handler it blocks the event
    loop, and with it every other handler. Leases do not suffer: retrieves, heartbeats and acks come
    from a thread of their own. A warning names the handler when the loop has stood for a third of
    the lease.

    Tasks arrive as they become ready, on a stream whose credit is the places that are free: a
    worker holds no task that it cannot start at once, so nothing waits behind a busy one. A handler
    that is asked to stop because its lease is lost, ``max_run`` is over or the worker stops gets
    CancelledError if it is async, and lets it pass; one that returns has finished its task.

    Args:
        client: says which server, with which credentials; the worker makes a connection of its own.
        topics: one or up to 16.
        concurrency: handlers at the same time.
        lease: how long a task is kept for this worker before the next heartbeat is needed;
            heartbeats come at a third of it, and so fast does the worker notice that a lease was
            revoked. None: 30 s.
        max_run: how long a handler may run; then the attempt ends with an error that says so, and
            counts. The topic's setting of that name holds as well. None: as the topic says.
        grace: how long handlers may continue after stop(); then they are cancelled and their tasks
            handed back. Such an attempt does not count: the worker ended, the task did not fail.
        poll: longest wait of one retrieve, up to 60 s, with a server that has no StreamRetrieve.
        max_jobs: stop by itself after so many deliveries; None: never.
        stop_when_idle: stop by itself when nothing was due for so long; None: never.
        clock_skew: how far the store's clock may jump at a failover. The worker takes a lease for
            lost this much before it expires, or a quarter of the lease if that is less.
        handle_signals: SIGTERM and SIGINT call stop() while run() runs in the main thread; a second
            one ends the grace time. A signal that the program handles itself is left alone.
        on_settled: is called with what became of each delivery, in the event loop of run(), which
            ends with what it raises.

    A plain function cannot be stopped from outside: when its lease is lost it continues, and its
    place is taken until it returns. It does not keep the process alive.
    """

    def __init__(
        self,
        client: Client,
        topics: str | Sequence[str],
        handler: Handler,
        *,
        concurrency: int = 10,
        lease: timedelta | None = None,
        max_run: timedelta | None = None,
        grace: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=20),
        max_jobs: int | None = None,
        stop_when_idle: timedelta | None = None,
        clock_skew: timedelta = _CLOCK_SKEW,
        handle_signals: bool = True,
        on_settled: Callable[[Job, Verdict], None] | None = None,
    ) -> None:
        lease = lease or timedelta(milliseconds=DEFAULTS.lease_ms)
        self.stats = WorkerStats()
        self._client = client
        self._handler = handler
        self._options = WorkerOptions(
            topics=(topics,) if isinstance(topics, str) else tuple(topics),
            concurrency=concurrency,
            lease=lease,
            max_run=max_run,
            grace_s=grace.total_seconds(),
            poll_s=poll.total_seconds(),
            max_jobs=max_jobs,
            idle_s=stop_when_idle.total_seconds() if stop_when_idle is not None else None,
            margin_s=min(clock_skew, lease / 4).total_seconds(),
        )
        self._handle_signals = handle_signals
        self._on_settled = on_settled
        self._stop_wanted = threading.Event()
        self._stop_now_wanted = threading.Event()
        self._control: tuple[Control, asyncio.AbstractEventLoop] | None = None
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Works until stop(), max_jobs or stop_when_idle. Server restarts are waited out.

        Cancelling it stops at once: handlers are cancelled and their tasks handed back. After the
        grace time it returns within 20 s, unless an async handler blocks the event loop.

        Raises:
            InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented: the server refuses
                what this worker asks for, and always will.
            WrongProcessError: the client was made before a fork.
        """
        program = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = program.create_future()
        with self._signals() as owns_interrupts:
            mailbox = Mailbox(program)
            handlers = Handlers(
                self._handler, mailbox, self._options.concurrency, owns_interrupts=owns_interrupts
            )
            limit_s = self._options.lease.total_seconds() / 3
            monitor = LoopMonitor(handlers.describe, limit_s) if handlers.is_async else None

            async def work() -> None:
                async with self._client.duplicate() as client:
                    reports = Reports(self._delivered, self._settled)
                    control = Control(client, handlers, self._options, reports, mailbox, monitor)
                    self._control = control, asyncio.get_running_loop()
                    try:
                        self._pass_on_stop()
                        await control.run()
                    finally:
                        self._control = None

            def in_thread() -> None:
                failure: BaseException | None = None
                try:
                    asyncio.run(work())
                except BaseException as error:  # noqa: BLE001 - it is raised in run()
                    failure = error
                with contextlib.suppress(RuntimeError):
                    mailbox.post(_set_result, ended, failure)

            # A daemon: a program that goes away without waiting for run() still ends.
            thread = threading.Thread(target=in_thread, name="ddq worker", daemon=True)
            thread.start()
            try:
                await asyncio.shield(ended)
                await handlers.join(JOIN_S)
            except asyncio.CancelledError:
                self._stop_now()
                # A program that ends may cancel it twice, directly and through the task that awaits
                # it. Handing back is bounded; cut short, it would leave tasks to their leases.
                while not ended.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.shield(ended)
                await handlers.join(JOIN_S)
                raise
            finally:
                handlers.close()
        failure = ended.result() or self._failure
        if failure is not None:
            raise failure

    def stop(self, *, now: bool = False) -> None:
        """Take nothing more, let handlers finish within the grace time, then end run().

        May be called from any thread and from a signal handler, and more than once.

        Args:
            now: the grace time is over; what runs is cancelled and handed back.
        """
        self._stop_wanted.set()
        if now:
            self._stop_now_wanted.set()
        self._pass_on_stop()

    @property
    def stopping(self) -> bool:
        """Whether it takes no more tasks because stop() was called."""
        return self._stop_wanted.is_set()

    def _stop_now(self) -> None:
        self.stop(now=True)

    def _pass_on_stop(self) -> None:
        # Written before it is read here, and by work() the other way round, so that a stop() that
        # comes while the worker starts is not lost.
        if self._control is None or not self._stop_wanted.is_set():
            return
        control, loop = self._control
        what = control.stop_now if self._stop_now_wanted.is_set() else control.stop
        _call(loop, what)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[bool]:
        if not self._handle_signals:
            yield sigint_cannot_raise()
            return
        with stop_on_signals(self.stop, self._stop_now) as owns_interrupts:
            yield owns_interrupts

    # In the program's event loop

    def _delivered(self, job: Job) -> None:
        self.stats.delivered += 1
        self.stats.running += 1
        self.stats.early += job.early

    def _settled(self, job: Job, verdict: Verdict) -> None:
        self.stats.running -= 1
        self.stats.verdicts[verdict] += 1
        if self._on_settled is None:
            return
        try:
            self._on_settled(job, verdict)
        except BaseException as error:  # noqa: BLE001 - run() raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._control is not None:
            control, loop = self._control
            _call(loop, control.fail, error)
        # The worker may have ended already; run() looks at this when it does.
        self._failure = self._failure or error


def _call(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object
) -> None:
    # The program may have closed its loop without waiting for run().
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)


def _set_result(ended: asyncio.Future[BaseException | None], failure: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(failure)
