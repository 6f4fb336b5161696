"""The edits, by name: what each does to a run, the promise that it breaks, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.edits.base import Edited

Change = Callable[[Edited], None]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of the base.

    Attributes:
        promise: that has to be named; "" for a change that breaks none.
        because: why it is a violation, or why not.
    """

    name: str
    change: Change
    promise: str
    because: str


EDITS: dict[str, Edit] = {}


def edit(promise: str, because: str, name: str = "") -> Callable[[Change], Change]:
    """Adds the decorated change to the corpus; ``name`` where one function makes several."""

    def add(change: Change) -> Change:
        named = name or change.__name__
        assert named not in EDITS, named
        EDITS[named] = Edit(named, change, promise, because)
        return change

    return add


def legal(because: str, name: str = "") -> Callable[[Change], Change]:
    """The same for a change that breaks no promise."""
    return edit("", because, name)
