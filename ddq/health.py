"""Whether a process lives, and whether it is ready; if not, why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

STARTING = "the store has not answered yet"
STOPPING = "it finishes the calls that run, and ends"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process can do its work.

    Attributes:
        reasons: what is wrong, by the part of the process; of several processes some may be ready
            while others are not.
    """

    ready: bool
    reasons: Mapping[str, str] = field(default_factory=dict)


class Reporting(Protocol):
    """A process, or several, whose readiness is known. Read in another thread."""

    def readiness(self) -> Readiness:
        """As of now."""


class Health:
    """The readiness of one process, as its parts report it. A new process is not ready."""

    def __init__(self) -> None:
        # Replaced, and never changed in place: it is read in another thread.
        self._reasons: Mapping[str, str] = {"start": STARTING}

    def report(self, part: str, reason: str | None) -> None:
        """A part of the process has a reason not to be ready; None: it is ready."""
        others = {name: why for name, why in self._reasons.items() if name != part}
        self._reasons = others if reason is None else others | {part: reason}

    def started(self) -> None:
        """The process does its work from now on."""
        self.report("start", None)

    def stopping(self) -> None:
        """The process is about to end."""
        self.report("stop", STOPPING)

    def readiness(self) -> Readiness:
        """See Reporting."""
        reasons = self._reasons
        return Readiness(not reasons, reasons)
