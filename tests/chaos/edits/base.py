"""The history that is edited: a real run of 40 s at a low rate.

    python -m tests.chaos.edits.base chaos/runs/FOLDER

keeps a run that was VALID as the base.
"""

from __future__ import annotations

import copy
import functools
import json
import lzma
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chaos.checker.bounds import Bounds
from chaos.checker.judge import Results, judge_history
from chaos.history.journal import read_journal
from chaos.history.reader import read_history
from chaos.history.run_folder import Final, Run

FOLDER = Path(__file__).parent / "base"

Json = dict[str, Any]
Name = tuple[str, str]
"""Topic and id of a task."""

BY_TASK = frozenset(
    {
        "enqueue", "ack", "run_again", "nack", "extend", "release", "snooze", "cancel",
        "reschedule", "get", "delete_dead",
    }
)  # fmt: skip


@dataclass(eq=False)
class Call:
    """One operation: its two events; ``end`` is empty where it was never completed."""

    begin: Json
    end: Json = field(default_factory=dict)

    @property
    def op(self) -> str:
        return str(self.begin["op"])

    @property
    def outcome(self) -> str:
        return str(self.end.get("type", "info"))

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def request(self) -> Json:
        request: Json = self.begin["request"]
        return request

    @property
    def reply(self) -> Json:
        reply: Json = self.end["reply"]
        return reply


@dataclass(eq=False)
class TaskTrace:
    """All that the run tells of one task.

    Attributes:
        leases: each with the Retrieve that reported it, in the order of the replies.
    """

    topic: str
    id: str
    calls: list[Call] = field(default_factory=list)
    leases: list[tuple[Call, Json]] = field(default_factory=list)
    entries: list[Json] = field(default_factory=list)

    def answered(self, op: str) -> list[Call]:
        return [call for call in self.calls if call.op == op and call.ok]

    def made(self, op: str) -> list[Json]:
        """Its entries of one transition."""
        return [entry for entry in self.entries if entry["op"] == op]


class Edited:
    """A copy of the base that may be changed."""

    def __init__(self) -> None:
        base = copy.deepcopy(_base())
        self.events: list[Json] = base[0]
        self.journal: list[Json] = base[1]
        self.final: Json = base[2]
        self.tasks = _tasks(self.events, self.journal)

    def task(self, fits: Callable[[TaskTrace], object]) -> TaskTrace:
        """The first task that fits."""
        return next(task for task in self.tasks.values() if fits(task))

    def retrieves(self) -> list[Call]:
        return [call for call in _calls(self.events) if call.op == "retrieve"]

    @property
    def end_ns(self) -> int:
        return max(int(event["time_ns"]) for event in self.events)

    def remove(self, call: Call) -> None:
        """As if a client had never asked."""
        gone = {id(call.begin), id(call.end)}
        self.events[:] = [event for event in self.events if id(event) not in gone]

    def insert(self, after_ns: int, op: str, request: Json, reply: Json, **how: Any) -> Call:
        """Another operation, of a process of its own; answered 1 ms after it was asked.

        Args:
            how: ``type`` of the completion, ``took_ns``.
        """
        process = f"edit-{len(self.events)}"
        begin_ns = after_ns + 1_000
        number = 1_000_000 + len(self.events)
        took_ns = how.get("took_ns", 1_000_000)
        begin = {
            "index": number, "time_ns": begin_ns, "process": process, "type": "invoke", "op": op,
            "request": request,
        }  # fmt: skip
        end = {
            "index": number + 1, "time_ns": begin_ns + took_ns, "process": process,
            "type": how.get("type", "ok"), "op": op, "reply": reply,
        }  # fmt: skip
        self.events += [begin, end]
        self.events.sort(key=lambda event: event["time_ns"])
        return Call(begin, end)

    def judged(self, folder: Path) -> Results:
        run = Run(folder)
        run.history.write_text("".join(json.dumps(event) + "\n" for event in self.events))
        run.journal.write_text("".join(json.dumps(entry) + "\n" for entry in self.journal))
        return judge_history(
            read_history(run.history),
            read_journal(run.journal),
            msgspec.convert(self.final, Final),
            bounds=Bounds(**_bounds()),
        ).results


def _tasks(events: list[Json], journal: list[Json]) -> dict[Name, TaskTrace]:
    tasks: dict[Name, TaskTrace] = {}

    def of(topic: str, task_id: str) -> TaskTrace:
        return tasks.setdefault((topic, task_id), TaskTrace(topic, task_id))

    for call in _calls(events):
        if call.op in BY_TASK:
            of(call.request["topic"], call.request["id"]).calls.append(call)
        elif call.op == "retrieve" and call.ok:
            for lease in call.reply.get("leases", []):
                of(lease["topic"], lease["id"]).leases.append((call, lease))
    for entry in journal:
        of(entry["topic"], entry["id"]).entries.append(entry)
    return tasks


def _calls(events: list[Json]) -> list[Call]:
    calls, under_way = [], {}
    for event in events:
        if event["type"] == "invoke":
            calls.append(Call(event))
            under_way[event["process"]] = calls[-1]
        elif event["process"] in under_way and event["op"] == under_way[event["process"]].op:
            under_way.pop(event["process"]).end = event
    return calls


# The files -------------------------------------------------------------------------------------


def _read(name: str) -> Iterator[Json]:
    with lzma.open(FOLDER / f"{name}.jsonl.xz", "rt") as file:
        for line in file:
            yield json.loads(line)


@functools.cache
def _base() -> tuple[list[Json], list[Json], Json]:
    final = json.loads((FOLDER / "final.json").read_text())
    return list(_read("history")), list(_read("journal")), final


@functools.cache
def _bounds() -> Json:
    bounds: Json = json.loads((FOLDER / "bounds.json").read_text())
    return bounds


def keep(folder: Path) -> None:
    """Makes a run's folder the base."""
    run = Run(folder)
    FOLDER.mkdir(exist_ok=True)
    for name, source in (("history", run.history), ("journal", run.journal)):
        (FOLDER / f"{name}.jsonl.xz").write_bytes(lzma.compress(source.read_bytes(), preset=9))
    (FOLDER / "final.json").write_bytes(run.final.read_bytes() + b"\n")
    bounds = json.loads(run.schedule.read_text())["bounds"]
    (FOLDER / "bounds.json").write_text(json.dumps(bounds) + "\n")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
