"""SIGTERM and SIGINT while workers run: the first asks them to stop, the second cuts it short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("ddq.worker")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(eq=False)
class _Registration:
    stop: Callable[[], None]
    stop_now: Callable[[], None]
    signals_count: int = 0


# Of the process, as signal handlers are: two workers in one program both have to stop.
_registrations: list[_Registration] = []
_replaced: dict[signal.Signals, tuple[Any, asyncio.AbstractEventLoop]] = {}


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None], stop_now: Callable[[], None]) -> Iterator[bool]:
    """Calls ``stop`` at the first signal within the block, and ``stop_now`` at those after it.

    Both are called in the main thread, between any two steps of the program, also while a handler
    blocks its event loop. A signal for which the program has set a handler of its own, or that it
    ignores, is left alone; so are all of them where the block does not run in the main thread.

    Yields:
        What sigint_cannot_raise() says while the signals are taken care of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield sigint_cannot_raise()
        return
    registration = _Registration(stop, stop_now)
    _registrations.append(registration)
    for number in _SIGNALS:
        _replace(number)
    try:
        yield sigint_cannot_raise()
    finally:
        _registrations.remove(registration)
        if not _registrations:
            for number in list(_replaced):
                _put_back(number)


def sigint_cannot_raise() -> bool:
    """Whether a KeyboardInterrupt in this thread cannot come from Ctrl-C.

    Python raises one in the main thread only, and not where SIGINT is handled here or ignored, as
    shells have it ignored by what a script starts in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        return True
    return signal.getsignal(signal.SIGINT) in (_on_signal, signal.SIG_IGN)


def _on_signal(_number: int, _frame: object) -> None:
    for registration in tuple(_registrations):
        registration.signals_count += 1
        if registration.signals_count == 1:
            registration.stop()
        else:
            registration.stop_now()


def _replace(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    if number in _replaced or not _is_default(before):
        return
    loop = asyncio.get_running_loop()
    try:
        # For its wake-up only: a signal that comes while the loop waits for something ends the
        # wait. What the loop would call comes too late where a handler blocks the loop.
        loop.add_signal_handler(number, _nothing)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        log.info(
            "%(signal)s does not stop the worker: %(error)s",
            {"signal": number.name, "error": error},
        )
        return
    signal.signal(number, _on_signal)
    _replaced[number] = before, loop


def _put_back(number: signal.Signals) -> None:
    before, loop = _replaced.pop(number)
    loop.remove_signal_handler(number)
    signal.signal(number, before)


def _is_default(handler: Any) -> bool:
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    # asyncio.run() sets this one, which cancels the whole program.
    return getattr(getattr(handler, "func", None), "__module__", None) == "asyncio.runners"


def _nothing() -> None:
    pass
