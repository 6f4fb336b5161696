"""Requests that wait for the store, and replies that wait for their confirmation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddq.errors import DdqError, WriteOutcomeUnknown
from ddq.store.connection import Command, Reply
from ddq.store.script_errors import NotHereError
from ddq.store.scripts import Script
from ddq.store.stamp import AtSend

Argument = str | bytes | int | AtSend
NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Committed:
    """What a script returned, and how many replicas had confirmed it by then."""

    reply: Reply
    replicas_acked: int


@dataclass(eq=False, slots=True)
class PendingRequest:
    """One script that is to run, and the future of its caller.

    Attributes:
        deadline_s: in the event loop's time.
        size_bytes: of the arguments, and of the reply once that waits for its confirmation.
        sent: whether the store may have run it.
        held_from_s: when its reply arrived, in the event loop's time, if the barrier of its own
            send was not enough.
    """

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    deadline_s: float
    future: asyncio.Future[Committed]
    size_bytes: int
    sent: bool = False
    held_from_s: float | None = None

    def command(self, *, with_source: bool) -> Command:
        """EVALSHA, or EVAL with the script's source for a store that does not know it."""
        args = [arg.value() if isinstance(arg, AtSend) else arg for arg in self.args]
        if with_source:
            return ("EVAL", self.script.source, len(self.keys), *self.keys, *args)
        return ("EVALSHA", self.script.sha1, len(self.keys), *self.keys, *args)

    @property
    def is_answered(self) -> bool:
        """Whether the caller has its answer, or does not wait for it any more."""
        return self.future.done()

    def answer(self, committed: Committed) -> None:
        """Gives the caller its reply, if it still waits."""
        if not self.future.done():
            self.future.set_result(committed)

    def fail(self, error: DdqError | NotHereError) -> None:
        """Gives the caller an error, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)


class UnconfirmedReplies:
    """Replies that have arrived and wait for a barrier that confirms their writes.

    Args:
        on_held: called for each that had to wait, once it is released, with how long, in s.
    """

    def __init__(self, on_held: Callable[[float], None] = lambda _: None) -> None:
        self._on_held = on_held
        self._replies: list[tuple[PendingRequest, Reply]] = []

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, request: PendingRequest, reply: Reply) -> None:
        """Keeps a reply until ``release`` or ``fail``."""
        self._replies.append((request, reply))

    def drop_abandoned(self) -> None:
        """Forgets the replies whose callers have gone."""
        self._replies = [each for each in self._replies if not each[0].is_answered]

    def release(self, replicas_acked: int, now_s: float) -> None:
        """Answers all callers: a barrier covers every write of its connection before it."""
        for request, reply in self._replies:
            if request.held_from_s is not None:
                self._on_held(now_s - request.held_from_s)
            request.answer(Committed(reply, replicas_acked))
        self._replies.clear()

    def fail(self, reason: str) -> None:
        """Ends all of them with an unknown outcome."""
        for request, _ in self._replies:
            request.fail(WriteOutcomeUnknown(f"the write was not confirmed: {reason}"))
        self._replies.clear()


def size_bytes(value: object) -> int:
    """About what an argument or a reply takes in memory."""
    if isinstance(value, bytes | str):
        return len(value)
    if not isinstance(value, list):
        return NUMBER_BYTES
    total = 0
    # A call for each of the arguments of a large batch would take longer than to pack them.
    for part in value:
        kind = type(part)
        total += len(part) if kind is bytes or kind is str else size_bytes(part)
    return total
