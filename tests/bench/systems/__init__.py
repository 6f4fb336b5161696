"""The systems under test: ddq and its peers, each in a file of its own behind one protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class MissingError(Exception):
    """A system cannot be measured here.

    Attributes:
        what: what is missing.
        remedy: the command that installs it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True)
class Running:
    """A system that has been started, empty.

    Attributes:
        address: HOST:PORT that its driver connects to.
        pids: the processes beside the driver, by layer: store, server.
        memory: reads how many bytes the pending tasks and all else occupy.
        left: counts the tasks that are not finished; None where the system cannot tell.
        bound: has the system refuse tasks while so many are not finished; None where it cannot.
    """

    address: str
    pids: Mapping[str, int]
    memory: Callable[[], Awaitable[int]]
    left: Callable[[], Awaitable[int]] | None = None
    bound: Callable[[int], Awaitable[object]] | None = None


@dataclass(frozen=True)
class Driver:
    """How the driver of a system is started; the job follows as the last argument."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class System(Protocol):
    """A system under test.

    Attributes:
        name: as the report shows it.
        bulk: tasks per call at most; 0: the system has no call for several tasks.
        works: whether its driver has a worker.
        concurrency: handlers that its worker runs at once, as its users would set it.
        lead_s: how long its worker needs to start.
        tasks_max: more tasks than this take too long with it.
    """

    name: str
    bulk: int
    works: bool
    concurrency: int
    lead_s: float
    tasks_max: int

    def prepare(self) -> Driver:
        """Builds or finds the driver.

        Raises:
            MissingError: something has to be installed first.
        """

    def start(self, folder: Path) -> AbstractAsyncContextManager[Running]:
        """An empty instance that is ended on exit; it may keep files in the folder."""
