"""When faults lay on the system, who was master and who led, as the history's notes tell."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TypeVar

from chaos.history.reader import History

MS = 1_000_000

K = TypeVar("K")


@dataclass(slots=True)
class Window:
    """One fault, from before its injection until a write is acknowledged after its healing."""

    kind: str
    target: str
    begin_ns: int
    end_ns: int
    verified: bool
    detail: str = ""


@dataclass(slots=True)
class Span:
    """A state of a process, for a time."""

    process: str
    state: str
    begin_ns: int
    end_ns: int


@dataclass(slots=True)
class Timeline:
    """What the notes of a history say.

    Attributes:
        failovers_ns: when a node was first seen as master after another one.
        roles: of store nodes; leaders: of schedulers, the state being topic, shard and epoch.
    """

    windows: list[Window] = field(default_factory=list)
    failovers_ns: list[int] = field(default_factory=list)
    roles: list[Span] = field(default_factory=list)
    leaders: list[Span] = field(default_factory=list)

    def failover_number(self, time_ns: int) -> int:
        """How many failovers there were until then."""
        return bisect_right(self.failovers_ns, time_ns)

    def quiet(self, grace_ns: int, more: list[tuple[int, int]] | None = None) -> Quiet:
        """When there was no fault, nor had been for so long; ``more`` spells count as faults."""
        spells = [(window.begin_ns, window.end_ns) for window in self.windows] + (more or [])
        return Quiet(sorted(spells), grace_ns)


class Quiet:
    """Tells trouble from health. Spells that overlap are one."""

    def __init__(self, spells: list[tuple[int, int]], grace_ns: int) -> None:
        self._grace_ns = grace_ns
        self._spells: list[tuple[int, int]] = []
        for begin_ns, end_ns in spells:
            if self._spells and begin_ns <= self._spells[-1][1]:
                last = self._spells[-1]
                self._spells[-1] = (last[0], max(last[1], end_ns))
            else:
                self._spells.append((begin_ns, end_ns))
        self._begins = [spell[0] for spell in self._spells]

    def troubled(self, begin_ns: int, end_ns: int) -> bool:
        """Whether a fault, or the grace behind one, touches the interval."""
        at = bisect_right(self._begins, end_ns) - 1
        return at >= 0 and self._spells[at][1] + self._grace_ns >= begin_ns


def timeline(history: History) -> Timeline:
    """Reads the notes in their order."""
    found = Timeline()
    open_faults: dict[tuple[str, str, str], Window] = {}
    roles: dict[str, Span] = {}
    leaders: dict[tuple[str, str], Span] = {}
    master = ""
    for note in history.notes:
        if note.op == "fault":
            fault = note.value
            key = (fault.kind, fault.target, fault.number)
            if fault.phase == "inject":
                window = Window(
                    fault.kind,
                    fault.target,
                    note.time_ns,
                    history.end_ns,
                    fault.verified,
                    fault.detail,
                )
                found.windows.append(window)
                open_faults[key] = window
            elif key in open_faults:
                window = open_faults.pop(key)
                window.end_ns = note.time_ns
                # Whether it happened is known only behind it.
                window.verified = window.verified and fault.verified
                window.detail = "; ".join(filter(None, (window.detail, fault.detail)))
        elif note.op == "role":
            role = note.value.role
            span = Span(note.process, role, note.time_ns, -1)
            _sample(found.roles, roles, note.process, span)
            if role == "master" and note.process != master:
                if master:
                    found.failovers_ns.append(note.time_ns)
                master = note.process
        elif note.op == "leader":
            what = f"{note.value.topic}:{note.value.shard}"
            state = f"{what} epoch {note.value.epoch}" if note.value.leads else ""
            span = Span(note.process, state, note.time_ns, -1)
            _sample(found.leaders, leaders, (note.process, what), span)
    for span in found.roles + found.leaders:
        if span.end_ns < 0:
            span.end_ns = history.end_ns
    found.leaders = [span for span in found.leaders if span.state]
    return found


def _sample(spans: list[Span], open_spans: dict[K, Span], key: K, span: Span) -> None:
    """A sample begins a span if it differs from the one before."""
    last = open_spans.get(key)
    if last is not None:
        if last.state == span.state:
            return
        last.end_ns = span.begin_ns
    open_spans[key] = span
    spans.append(span)


__all__ = ["MS", "Quiet", "Span", "Timeline", "Window", "timeline"]
