"""The same client for programs without an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc

from ddq.client.access import Access
from ddq.client.aio import Client
from ddq.client.calls import DEFAULT_TIMEOUT_S
from ddq.client.process import check_process, claim_process

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncClient, P], R]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(method(self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[SyncClient, P], Iterator[R]]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        pages = method(self.client, *args, **kwargs)

        async def following() -> tuple[R, ...]:
            async for value in pages:
                return (value,)
            return ()

        try:
            while value := self.run(following()):
                yield value[0]
        finally:
            self.run(pages.aclose())

    return call


class SyncClient:
    """Client without async: the same methods, arguments, results and errors.

    An event loop in a thread of its own does the work; calls from several threads run at the same
    time::

        with SyncClient("127.0.0.1:50051") as client:
            client.enqueue("mail", b"hello", delay=timedelta(seconds=90))

    Args:
        address: ``host:port`` of a ddq server, or any target that gRPC understands.
        timeout_s: how long a request may take with all its repeats, unless a call says otherwise.
        access: TLS, the client's certificate and its token; None: plain text, and no token.
        credentials: for TLS, in place of what ``access`` says about it.

    Raises:
        AccessError: ``access`` cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        access: Access | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        # Before the thread is started: in a fork of a process that used gRPC nothing would work.
        self._process = claim_process()
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program which forgets to close still ends.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="ddq client", daemon=True
        )
        self._thread.start()
        try:
            self._client = self.run(self._open(address, timeout_s, access, credentials))
        except BaseException:
            self._stop()
            raise

    @staticmethod
    async def _open(
        address: str,
        timeout_s: float,
        access: Access | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> Client:
        return Client(address, timeout_s=timeout_s, access=access, credentials=credentials)

    @property
    def client(self) -> Client:
        """The client behind it; use it from its own loop only."""
        return self._client

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine in the client's loop and returns its result.

        Raises:
            WrongProcessError: the client was made in another process, of which this one is a fork.
        """
        if self._process != os.getpid():
            # The thread that runs the loop is not there.
            work.close()
            check_process(self._process)
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C in the caller's thread: the request must not continue in the background.
            future.cancel()
            raise

    def close(self) -> None:
        """Closes the connection and ends the thread; does nothing in a fork of its process."""
        if self._process == os.getpid() and not self._loop.is_closed():
            self.run(self._client.close())
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    connect = _blocking(Client.connect)

    enqueue = _blocking(Client.enqueue)
    enqueue_batch = _blocking(Client.enqueue_batch)
    retrieve = _blocking(Client.retrieve)
    ack = _blocking(Client.ack)
    ack_batch = _blocking(Client.ack_batch)
    run_again = _blocking(Client.run_again)
    nack = _blocking(Client.nack)
    nack_batch = _blocking(Client.nack_batch)
    extend = _blocking(Client.extend)
    extend_batch = _blocking(Client.extend_batch)
    release = _blocking(Client.release)
    release_batch = _blocking(Client.release_batch)
    snooze = _blocking(Client.snooze)
    snooze_batch = _blocking(Client.snooze_batch)
    cancel = _blocking(Client.cancel)
    cancel_batch = _blocking(Client.cancel_batch)
    reschedule = _blocking(Client.reschedule)
    get_task = _blocking(Client.get_task)
    list_tasks = _iterating(Client.list_tasks)

    create_topic = _blocking(Client.create_topic)
    get_topic = _blocking(Client.get_topic)
    list_topics = _iterating(Client.list_topics)
    update_topic = _blocking(Client.update_topic)
    delete_topic = _blocking(Client.delete_topic)
    pause_topic = _blocking(Client.pause_topic)
    resume_topic = _blocking(Client.resume_topic)
    purge_topic = _blocking(Client.purge_topic)
    list_dead = _iterating(Client.list_dead)
    redrive = _blocking(Client.redrive)
    delete_dead = _blocking(Client.delete_dead)
    stats = _blocking(Client.stats)
    check_health = _blocking(Client.check_health)
