"""What is easily taken for a broken promise and is none, and what is easily overlooked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.checker.judge import judge, judge_journal
from chaos.checker.promises import CHECKERS
from chaos.history.operations import (
    RetrySettings,
)
from chaos.history.reader import read_history
from chaos.history.run_folder import Run
from chaos.history.synthetic import SyntheticHistory, write_run
from models import operations as spec
from models import queue
from tests.chaos.test_promises import broken, explanation, found, judged, once

QUICK = RetrySettings(5, 0, 0, 1.0, 0.0)


def handed_back() -> SyntheticHistory:
    """A released lease gives its attempt back: five releases, then as many attempts as allowed."""
    history = SyntheticHistory(policy=RetrySettings(2, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    for _ in range(5):
        lease = history.lease()
        history.release(lease)
        history.release(lease)
    history.nack(history.lease())
    history.promote()
    history.ack(history.lease())
    return history


def snoozed() -> SyntheticHistory:
    """A snoozed lease gives its attempt back, and its delay is not a backoff."""
    history = SyntheticHistory(policy=RetrySettings(2, 5_000, 5_000, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    for number in range(5):
        lease = history.lease()
        history.snooze(lease, delay_ms=100, lost=number == 3)
        history.snooze(lease, delay_ms=100)
        history.wait(0.15)
        history.promote()
    history.nack(history.lease())
    history.wait(5.1)
    history.promote()
    history.ack(history.lease())
    return history


def run_again() -> SyntheticHistory:
    """Each run plans the next; replies are lost, and repeats come when that is leased or done."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a")
    history.promote()
    first = history.lease()
    history.run_again(first, delay_ms=50, process="w.1", lost=True)
    history.wait(0.1)
    history.promote()
    second = history.lease()
    history.run_again(first, delay_ms=50, process="w.2")
    history.run_again(
        second, payload="another", delay_ms=50, process="w.3", lost=True, arrives=False
    )
    history.run_again(second, payload="another", delay_ms=50, process="w.4")
    history.run_again(second, payload="another", delay_ms=50, process="w.4")
    history.cancel("a")
    history.cancel("a")
    return history


def debounced() -> SyntheticHistory:
    """Events push the task back up to the limit; one is lost, and one comes when it has run."""
    history = SyntheticHistory(policy=QUICK)
    for number in range(5):
        history.enqueue(
            "a", f"event {number}", delay_ms=200, limit_ms=400, on_conflict="debounce",
            process=f"p.{number}", lost=number == 2,
        )  # fmt: skip
        history.wait(0.12)
    history.promote()
    history.enqueue("a", "ready by now", delay_ms=200, limit_ms=400, on_conflict="debounce")
    history.promote()
    lease = history.lease()
    history.enqueue("a", "too late", delay_ms=200, limit_ms=400, on_conflict="debounce")
    history.ack(lease)
    history.enqueue("a", "the next", delay_ms=200, limit_ms=400, on_conflict="debounce")
    history.wait(0.3)
    history.promote()
    history.ack(history.lease())
    return history


def redriven() -> SyntheticHistory:
    """A dead task gets a new run, with attempts from 1."""
    history = SyntheticHistory(policy=RetrySettings(1, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.nack(history.lease())
    history.redrive("a")
    history.promote()
    history.nack(history.lease())
    history.redrive("a")
    history.promote()
    history.ack(history.lease())
    return history


def moved() -> SyntheticHistory:
    """Rescheduled while ready: another promotion; rescheduled to sooner: due sooner."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.reschedule("a", delay_ms=20_000)
    history.reschedule("a", delay_ms=100)
    history.wait(0.15)
    history.promote()
    history.ack(history.lease())
    history.reschedule("a")
    return history


def replaced() -> SyntheticHistory:
    """Another incarnation under the same id, delivered after the cancel of the first."""
    history = SyntheticHistory()
    history.enqueue("a", "first")
    history.cancel("a")
    history.enqueue("a", "second", on_conflict="replace_finished")
    history.promote()
    history.ack(history.lease())
    history.enqueue("b", "first", delay_ms=60_000)
    history.enqueue("b", "second", on_conflict="replace_scheduled")
    history.promote()
    history.ack(history.lease())
    return history


def revoked() -> SyntheticHistory:
    """A cancel that takes the lease away; its holder is refused, a repeat finds it cancelled."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    lease = history.lease()
    history.cancel("a")
    history.cancel("a", revoke=True)
    history.cancel("a", revoke=True)
    history.ack(lease)
    history.extend(lease)
    return history


def repeated_enqueue() -> SyntheticHistory:
    """The same enqueue again, also when the task has ended: no second one."""
    history = SyntheticHistory()
    for _ in range(3):
        history.enqueue("a")
    history.promote()
    history.ack(history.lease())
    history.enqueue("a")
    history.enqueue("a", "other content")
    return history


def late_but_unsuperseded() -> SyntheticHistory:
    """Acked after its lease expired and was reaped, before another client got it."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a")
    history.promote()
    lease = history.lease(lease_ms=500)
    history.wait(1)
    history.reap()
    history.promote()
    history.ack(lease)
    history.ack(lease)
    return history


def lost_retrieve() -> SyntheticHistory:
    """No client knows of the lease; it expires and counts as an attempt; the next is the 2nd."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a")
    history.promote()
    history.retrieve(lease_ms=500, lost=True)
    history.cancel("a", process="q")
    history.wait(1)
    history.reap()
    history.promote()
    history.ack(history.lease(process="v"), process="v")
    return history


def repeated_behind_a_lost_lease() -> SyntheticHistory:
    """An enqueue is repeated by the client library, and answered when the lost lease has expired:
    when the task is due by that reply is when it was to be retried."""
    history = SyntheticHistory(policy=RetrySettings(5, 1_000, 1_000, 1.0, 0.0))
    history.enqueue("a", lost=True)
    history.events.pop()
    history.promote()
    history.retrieve(lease_ms=500, lost=True)
    history.wait(1)
    history.reap()
    history.wait(1)
    history.promote()
    history.enqueue("a")
    del history.events[-2]
    lease = history.lease(process="v")
    history.cancel("a", process="q")
    history.ack(lease, process="v")
    return history


def repeated_behind_a_snooze() -> SyntheticHistory:
    """An enqueue is repeated by the client library, and answered when the task has been snoozed:
    the due time of that reply is the snooze's."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a", lost=True)
    history.events.pop()
    history.promote()
    history.snooze(history.lease(), delay_ms=400)
    history.enqueue("a")
    del history.events[-2]
    history.wait(0.5)
    history.promote()
    history.ack(history.lease())
    return history


def repeated_behind_the_next_run() -> SyntheticHistory:
    """An enqueue is repeated by the client library, and answered when the task's next run is there:
    the incarnation of that reply is not the one that the enqueue made."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a", lost=True)
    history.events.pop()
    history.promote()
    lease = history.lease()
    history.cancel("a", process="q")
    history.run_again(lease, delay_ms=50)
    history.enqueue("a")
    del history.events[-2]
    return history


def lapsed_before_the_repeat() -> SyntheticHistory:
    """A Retrieve is repeated by the client library when its lease has expired: its reply names no
    lease, and yet a cancel was refused because of it."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a")
    history.promote()
    history.retrieve(lease_ms=500, request_id="r", lost=True)
    history.events.pop()
    history.cancel("a", process="q")
    history.wait(1)
    history.reap()
    history.retrieve(lease_ms=500, request_id="r")
    del history.events[-2]
    history.promote()
    history.ack(history.lease())
    return history


def lost_and_asked_again() -> SyntheticHistory:
    """The lost reply's leases are asked for again, after a wait, with the same request_id."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.retrieve(request_id="r", lost=True)
    history.wait(5)
    (lease,) = history.retrieve(process="w.1", request_id="r")
    history.ack(lease, process="w.1")
    return history


def lost_replies() -> SyntheticHistory:
    """Every kind of operation took effect without its caller knowing."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a", lost=True)
    history.enqueue("b", process="p.1", delay_ms=100, lost=True)
    history.cancel("b", process="p.2", lost=True)
    history.cancel("b", process="p.3")
    history.promote()
    history.nack(history.lease(), lost=True)
    history.promote()
    history.release(history.lease(process="w.1"), process="w.1", lost=True)
    history.ack(history.lease(process="w.2"), process="w.2", lost=True)
    return history


def lost_requests() -> SyntheticHistory:
    """None of these ever arrived."""
    history = SyntheticHistory(policy=QUICK)
    history.enqueue("a", lost=True, arrives=False)
    history.enqueue("b", process="p.1")
    history.cancel("b", process="p.1", lost=True, arrives=False)
    history.promote()
    lease = history.lease()
    history.ack(lease, lost=True, arrives=False)
    history.extend(lease, process="w.1")
    history.nack(lease, process="w.1", lost=True, arrives=False)
    history.retrieve(process="w.2", lost=True, arrives=False)
    history.ack(lease, process="w.3")
    return history


BENIGN = [
    handed_back, snoozed, run_again, debounced, redriven, moved, replaced, revoked,
    repeated_enqueue, late_but_unsuperseded, lost_retrieve, repeated_behind_a_lost_lease,
    repeated_behind_a_snooze, repeated_behind_the_next_run, lapsed_before_the_repeat,
    lost_and_asked_again, lost_replies, lost_requests,
]  # fmt: skip


def test_a_debounce_beyond_its_limit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlimited(shard: Any, op: Any, context: Any) -> Any:
        return queue.enqueue(shard, replace(op, limit_ms=10**9), context)

    with monkeypatch.context() as mutated:
        mutated.setitem(queue.TRANSITIONS, spec.Enqueue, unlimited)
        history = SyntheticHistory(policy=QUICK)
        for number in range(4):
            history.enqueue(
                "a", f"event {number}", delay_ms=200, limit_ms=400, on_conflict="debounce"
            )
            history.wait(0.12)
    results = judged(tmp_path, history)
    assert "G6" in broken(results), explanation(results)
    assert "its limit is 400 ms" in explanation(results)


@pytest.mark.parametrize("with_journal", [True, False], ids=["journal", "replies"])
@pytest.mark.parametrize("history", BENIGN)
def test_correct_histories_are_valid(tmp_path: Path, history: Any, with_journal: bool) -> None:
    results = judged(tmp_path, history(), journal=with_journal)
    assert not broken(results), explanation(results)
    unknown = {p.id for p in results.promises if p.verdict == "UNKNOWN"}
    assert unknown == (set() if with_journal else {"G3", "G12", "G14"}), explanation(results)


def test_unknowns_are_resolved_by_the_journal(tmp_path: Path) -> None:
    assert judged(tmp_path / "applied", lost_replies()).unknowns == {
        # The cancel may have been done by the one that found it done: an attempt of its own.
        "all": 6, "applied": 5, "absent": 0, "open": 1,
    }  # fmt: skip
    assert judged(tmp_path / "absent", lost_requests()).unknowns == {
        # The lost ack may be what the ack that was answered found done.
        "all": 5, "applied": 0, "absent": 4, "open": 1,
    }  # fmt: skip


def test_an_unknown_ack_that_was_none_is_no_excuse(tmp_path: Path) -> None:
    """The task is gone; the only ack that may have ended it is not in the journal."""
    history = once()
    event = found(history, "ack")
    event["type"], event["reply"] = "info", {"error": "OUTCOME_UNKNOWN"}
    assert judged(tmp_path / "may", history).verdict == "VALID"
    history.journal = [e for e in history.journal if e["op"] != "ack"]
    assert "G2" in broken(judged(tmp_path / "not", history))


def test_a_moved_delivery_is_noticed(tmp_path: Path) -> None:
    """After the ack of its own lease, in time as well as before the enqueue."""
    for shift_s, promise in ((5, "G9"), (-3.2, "G1")):
        history = once()
        for event in history.events:
            if event["op"] == "retrieve":
                event["time_ns"] += int(shift_s * 1e9)
        history.events.sort(key=lambda event: event["time_ns"])
        assert promise in broken(judged(tmp_path / promise, history)), promise


def test_a_reordered_cancel_is_noticed(tmp_path: Path) -> None:
    """It came after the delivery and says so by its revision; by its time it comes before."""
    history = SyntheticHistory(policy=RetrySettings(5, 10_000, 10_000, 1.0, 0.0))
    history.enqueue("a", delay_ms=900)
    history.wait(1)
    history.promote()
    history.nack(history.lease())
    history.cancel("a")
    assert judged(tmp_path / "whole", history).verdict == "VALID"
    begin, end = found(history, "cancel", "invoke"), found(history, "cancel")
    begin["time_ns"], end["time_ns"] = 500_000_000, 502_000_000
    results = judged(tmp_path / "moved", history)
    assert broken(results) == {"G4"}, explanation(results)


def test_a_replayed_lease_after_the_end_is_a_delivery(tmp_path: Path) -> None:
    """A repeat of a Retrieve that still hands out what was cancelled or acked meanwhile."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    lease = history.lease(request_id="r")
    history.ack(lease)
    history.retrieve(request_id="r")
    found(history, "retrieve", nth=1)["reply"] = found(history, "retrieve")["reply"]
    assert "G9" in broken(judged(tmp_path, history))


def test_in_a_lost_lineage_acknowledged_writes_are_lost(tmp_path: Path) -> None:
    """As FAST does it: the deposed master acknowledged a task that the surviving store lacks."""
    history = once()
    kept, lost = SyntheticHistory(seed=3), [e for e in history.events if e["op"] == "enqueue"]
    lost[1]["reply"]["lineage"] = "dead"
    kept.events = lost
    results = judged(tmp_path, kept)
    assert broken(results) == {"G2"}, explanation(results)
    (g2,) = [p for p in results.promises if p.id == "G2"]
    assert g2.lost_lineage_count == 1


def test_less_than_a_whole_run_is_never_green(tmp_path: Path) -> None:
    assert judged(tmp_path / "1", once(), final=False).verdict == "UNKNOWN"
    assert judged(tmp_path / "2", once(), drained=False).verdict == "UNKNOWN"
    assert judged(tmp_path / "3", once(), journal=False).verdict == "UNKNOWN"

    empty = write_run(tmp_path / "4", SyntheticHistory())
    empty.history.write_text("")
    assert judge(empty).results.verdict == "UNKNOWN"

    cut = write_run(tmp_path / "5", once())
    cut.history.write_bytes(cut.history.read_bytes()[:-20])
    results = judge(cut).results
    assert results.verdict == "UNKNOWN", explanation(results)
    assert "cut off" in results.problems[0]

    trimmed = once()
    del trimmed.journal[0]
    trimmed.trimmed = 1
    (g3,) = [p for p in judged(tmp_path / "6", trimmed).promises if p.id == "G3"]
    assert g3.verdict == "UNKNOWN"


def test_a_checker_that_crashes_is_unknown(tmp_path: Path) -> None:
    def crash(_: object) -> Any:
        raise ZeroDivisionError("oh")

    from dataclasses import replace

    crashing = [replace(CHECKERS[0], check=crash), *CHECKERS[1:]]
    results = judge(write_run(tmp_path, once()), checkers=crashing).results
    assert results.verdict == "UNKNOWN"
    assert results.promises[0].unknown == ["the checker crashed: ZeroDivisionError: oh"]


def test_the_search_gives_up_at_its_bound(tmp_path: Path) -> None:
    from chaos.checker.bounds import Bounds

    run = write_run(tmp_path, lost_retrieve(), journal=False)
    (g4,) = [p for p in judge(run, Bounds(search_nodes=2)).results.promises if p.id == "G4"]
    assert g4.verdict == "UNKNOWN"
    assert "took more than 2 tries" in g4.unknown[0]


def test_a_gate_that_is_not_met_is_unknown(tmp_path: Path) -> None:
    run = write_run(tmp_path, lost_requests())
    run.schedule.write_text('{"gates": {"unknowns later proved absent": 4, "operations": 3}}')
    results = judge(run).results
    assert results.verdict == "VALID", explanation(results)
    assert [gate.measured for gate in results.gates] == [9, 4]
    run.schedule.write_text('{"gates": {"unknowns later proved absent": 5}}')
    assert judge(run).results.verdict == "UNKNOWN"


JOURNAL_BREAKS = {
    "G3": lambda t: t.journal.insert(2, t.journal[1] | {"revision": 99}),
    "G4": lambda t: (
        t.journal.append(t.journal[-1] | {"from": "cancelled", "op": "extend"})
        or t.journal[-2].update(op="cancel", to="cancelled")
    ),
    "G5": lambda t: t.journal[1].update(at_ms=t.journal[1]["due_ms"] - 1),
    "G6": lambda t: t.journal[1].update(at_ms=t.journal[1]["due_ms"] + 900),
    "G7": lambda t: t.journal.insert(3, t.journal[2] | {"attempt": 2}),
    "G8": lambda t: t.journal.insert(2, t.journal[3] | {"op": "extend", "to": "ready"}),
    "G9": lambda t: t.journal.append(t.journal[2] | {"attempt": 2}),
    "G10": lambda t: t.journal[2].update(attempt=2),
    "G12": lambda t: t.journal[3].update(epoch=0),
    "G13": lambda t: t.journal.append(t.journal[3] | {"revision": 99}),
}


@pytest.mark.parametrize("promise", JOURNAL_BREAKS)
def test_a_journal_is_judged_by_itself(tmp_path: Path, promise: str) -> None:
    history = once()
    run = write_run(tmp_path / "whole", history)
    assert judge_journal(run.journal, max_attempts=5).results.verdict == "VALID"
    JOURNAL_BREAKS[promise](history)
    results = judge_journal(write_run(tmp_path / "broken", history).journal).results
    assert promise in broken(results), explanation(results)
    summary = next(p.anomalies[0]["summary"] for p in results.promises if p.id == promise)
    assert "work/a" in summary


def test_a_run_names_its_files(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert [path.name for path in (run.history, run.journal, run.final, run.schedule)] == [
        "history.jsonl", "journal.jsonl", "final.json", "schedule.json",
    ]  # fmt: skip
    assert read_history(write_run(tmp_path, once()).history).run.scenario == "synthetic"


def test_a_share_of_nothing_is_no_share(tmp_path: Path) -> None:
    """A run that was under a fault all the time, or asked only for what was not there."""

    def share(history: SyntheticHistory, folder: str) -> float:
        run = write_run(tmp_path / folder, history)
        run.schedule.write_text('{"gates": {"served share when healthy": 0.5}}')
        (gate,) = judge(run).results.gates
        return gate.measured

    assert share(once(), "healthy") == 1.0
    troubled = SyntheticHistory()
    troubled.fault("kill", "n1", "inject")
    troubled.enqueue("a")
    assert share(troubled, "troubled") == 0.0
    empty = SyntheticHistory()
    empty.retrieve()
    assert share(empty, "empty") == 0.0


@pytest.mark.parametrize(("off_ms", "allowed_ms"), [(0, 11), (300, 311), (5_000, 1_000)])
def test_no_more_is_allowed_for_than_the_clocks_of_the_run_were_off(
    tmp_path: Path, off_ms: int, allowed_ms: int
) -> None:
    history = SyntheticHistory()
    history.enqueue("a", delay_ms=60_000)
    found(history, "enqueue")["reply"]["store_ms"] += off_ms
    results = judged(tmp_path, history)
    assert allowed_ms - 2 <= results.bounds.clock_error_ms <= allowed_ms


def test_a_clock_that_is_behind_at_first_and_ahead_later_is_off_by_both(tmp_path: Path) -> None:
    """As when the controller's own wall clock was read late, and the store's is then set."""
    history = SyntheticHistory()
    for task_id in "ab":
        history.enqueue(task_id, delay_ms=60_000)
    found(history, "enqueue")["reply"]["store_ms"] -= 100
    found(history, "enqueue", nth=1)["reply"]["store_ms"] += 400
    results = judged(tmp_path, history)
    assert 505 <= results.bounds.clock_error_ms <= 511


def test_the_clock_errors_of_both_ends_of_a_delay_are_allowed_for(tmp_path: Path) -> None:
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.retrieve()
    found(history, "enqueue")["reply"]["store_ms"] -= 100
    found(history, "retrieve")["reply"]["leases"][0]["store_ms"] += 200
    assert 300 <= judged(tmp_path, history).bounds.clock_error_ms <= 311
