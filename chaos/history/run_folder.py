"""The folder that a run leaves behind, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from chaos.history.operations import (
    Counts,
    State,
    Value,
)
from chaos.history.reader import BadHistoryError


class FinalTopic(Value):
    """A topic after the drain.

    Attributes:
        shards: what each shard counts.
        held: the tasks that are still there: state → id → incarnation.
        trimmed: how many entries the journal of each shard has dropped; None: not known.
    """

    shards: list[Counts]
    held: dict[State, dict[str, int]] = msgspec.field(default_factory=dict)
    trimmed: list[int] | None = None


class Final(Value):
    """What is left when everything has healed and workers have retrieved until there was nothing.

    Attributes:
        drained: False: the drain did not finish; G2 and G11 stay UNKNOWN.
        differing: keys that some node of the store holds in another form; None: not known.
    """

    topics: dict[str, FinalTopic]
    drained: bool = True
    differing: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def history(self) -> Path:
        """What the clients saw, and the faults; see chaos/history/reader.py."""
        return self.folder / "history.jsonl"

    @property
    def clients_log(self) -> Path:
        """Warnings of the clients of the run."""
        return self.folder / "clients.log"

    @property
    def journal(self) -> Path:
        """What the surviving store did; see chaos/history/journal.py."""
        return self.folder / "journal.jsonl"

    @property
    def final(self) -> Path:
        """What was left after the drain."""
        return self.folder / "final.json"

    @property
    def problems(self) -> Path:
        """What went wrong with the run itself; a run that did not end has no such file."""
        return self.folder / "problems.json"

    @property
    def schedule(self) -> Path:
        """Seed, faults with their times, coverage gates, and the command that replays it."""
        return self.folder / "schedule.json"

    @property
    def results(self) -> Path:
        """The verdict, for programs."""
        return self.folder / "results.json"

    @property
    def report(self) -> Path:
        """The verdict, for people."""
        return self.folder / "report.html"

    def read_final(self) -> Final | None:
        """None if the run did not come so far.

        Raises:
            BadHistoryError: the file is there and cannot be read.
        """
        if not self.final.exists():
            return None
        try:
            return msgspec.json.decode(self.final.read_bytes(), type=Final)
        except (OSError, msgspec.DecodeError) as error:
            raise BadHistoryError(f"{self.final.name}: {error}") from None

    def read_problems(self) -> list[str]:
        """What went wrong with the run itself; each makes its verdict UNKNOWN at best.

        Raises:
            BadHistoryError: the file is there and cannot be read.
        """
        if not self.problems.exists():
            return [f"{self.problems.name} is missing: the run was not brought to its end"]
        try:
            return msgspec.json.decode(self.problems.read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError) as error:
            raise BadHistoryError(f"{self.problems.name}: {error}") from None

    def write_problems(self, problems: list[str]) -> None:
        """Leaves what went wrong with the run itself."""
        self.problems.write_bytes(msgspec.json.format(msgspec.json.encode(problems)) + b"\n")

    def write_final(self, final: Final) -> None:
        """Leaves what the drain found."""
        self.final.write_bytes(msgspec.json.encode(final))


__all__ = ["Final", "FinalTopic", "Run"]
