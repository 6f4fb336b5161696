"""What becomes of the nemesis's events: windows that bracket all of what a fault does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from chaos.checker.timeline import Timeline, timeline
from chaos.clusters import ClusterError
from chaos.experiments.fault_recorder import FaultRecorder
from chaos.experiments.progress import Progress
from chaos.faults import nemesis
from chaos.faults.model import Evidence
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, Step, play
from chaos.history.reader import read_history
from chaos.history.writer import HistoryWriter
from ddq.client import Client
from ddq.errors import StoreUnreachable

PAUSE = Step("pause", "master", settle=False)


class Probed:
    """A client whose requests are answered once the queue is said to serve."""

    def __init__(self) -> None:
        self.serves = asyncio.Event()

    async def enqueue(self, *_: Any, **__: Any) -> None:
        if not self.serves.is_set():
            raise StoreUnreachable("not yet")


async def recorded(path: Path, *events: FaultEvent | None) -> tuple[Timeline, FaultRecorder]:
    """The windows after these events; at None the queue serves again."""
    client = Probed()
    with HistoryWriter(path) as writer:
        recorder = FaultRecorder(writer, Progress("x"), [cast("Client", client)])
        async with recorder.windows():
            for event in events:
                if event is not None:
                    recorder.record(event)
                    continue
                client.serves.set()
                while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0)
                client.serves.clear()
    return timeline(read_history(path)), recorder


def at(phase: FaultPhase, number: str = "0.0", **evidence: Any) -> FaultEvent:
    return FaultEvent(number, phase, PAUSE, evidence)


async def test_a_window_begins_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[FaultEvent] = []
    before: list[list[FaultPhase]] = []

    class Slow:
        async def inject(self) -> Evidence:
            before.append([event.phase for event in events])
            return {}

        async def verify(self) -> Evidence:
            return {}

        async def heal(self) -> None:
            pass

    class SlowKind:
        def unavailable(self, *_: Any) -> None:
            return None

        def make(self, *_: Any) -> Slow:
            return Slow()

    class World:
        class cluster:  # noqa: N801
            @staticmethod
            async def master() -> Any:
                raise ClusterError("none")

    monkeypatch.setattr(nemesis, "kind", lambda _: SlowKind())
    await play(Schedule(((PAUSE,),), 1_000), cast("Any", World()), events.append)
    assert before == [[FaultPhase.BEGUN]]
    found, _ = await recorded(
        tmp_path / "h.jsonl", at(FaultPhase.BEGUN), at(FaultPhase.INJECTED, paused="d1")
    )
    assert len(found.windows) == 1


async def test_a_window_ends_when_a_write_is_acknowledged_and_says_what_was_seen(
    tmp_path: Path,
) -> None:
    found, recorder = await recorded(
        tmp_path / "h.jsonl", at(FaultPhase.BEGUN), at(FaultPhase.INJECTED, paused="d1"),
        at(FaultPhase.VERIFIED, state="T"), at(FaultPhase.HEALED), None,
    )  # fmt: skip
    (window,) = found.windows
    assert (window.verified, window.detail) == (True, "paused d1, state T")
    assert not recorder.unserved


async def test_a_fault_that_begins_before_the_last_of_its_kind_is_over_has_a_window_of_its_own(
    tmp_path: Path,
) -> None:
    found, _ = await recorded(
        tmp_path / "h.jsonl",
        at(FaultPhase.BEGUN), at(FaultPhase.VERIFIED), at(FaultPhase.HEALED),
        at(FaultPhase.BEGUN, "0.1"), at(FaultPhase.VERIFIED, "0.1"), None,
        at(FaultPhase.HEALED, "0.1"), None,
    )  # fmt: skip
    first, second = found.windows
    assert first.begin_ns < second.begin_ns < first.end_ns < second.end_ns
    assert first.verified
    assert second.verified


async def test_a_fault_that_is_not_available_leaves_no_window_open(tmp_path: Path) -> None:
    found, recorder = await recorded(
        tmp_path / "h.jsonl",
        at(FaultPhase.BEGUN),
        at(FaultPhase.NOT_AVAILABLE, why="no room"),
        at(FaultPhase.BEGUN, "0.1"),
    )
    first, second = found.windows
    assert not first.verified
    assert first.end_ns <= second.begin_ns
    assert recorder.not_available == {"pause master": "no room"}
