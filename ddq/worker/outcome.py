"""How one run of a handler ended, as a value.

A handler's exception crosses from the handler's thread or event loop to the worker's as a value and
is never raised there: a future cannot carry StopIteration, an event loop ends at SystemExit, and
CancelledError in a future looks like a cancellation of the future.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from ddq.worker.job import DeadLetter, Retry, Snooze


class End(enum.Enum):
    """Why a handler does not run any more."""

    RETURNED = "returned"
    RAISED = "raised"
    CANCELLED = "cancelled"
    """Its task was cancelled from outside: by the worker, or by the program around it."""
    NOT_STARTED = "not started"
    """The lease was over, or given back, before the handler could begin."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a handler ended.

    Attributes:
        error: what it raised; only where it raised.
    """

    end: End
    error: BaseException | None = None


RETURNED = Outcome(End.RETURNED)
CANCELLED = Outcome(End.CANCELLED)
NOT_STARTED = Outcome(End.NOT_STARTED)


def raised(error: BaseException) -> Outcome:
    """The outcome of a handler that raised ``error``."""
    return Outcome(End.RAISED, error)


def error_text(error: BaseException) -> str:
    """What is kept as the task's last error."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as unreadable:  # noqa: BLE001 - the handler's class may do anything
        return f"{name}, whose text cannot be read: {type(unreadable).__name__}"
    if isinstance(error, Retry | DeadLetter | Snooze):
        return text
    if text:
        return f"{name}: {text}"
    if isinstance(error, asyncio.CancelledError):
        return f"{name}: raised within the handler; the worker had not cancelled it"
    return name
