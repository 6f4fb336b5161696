"""What operators ask for: the smallest histories in which its effect is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.checker.judge import Results, judge
from chaos.checker.uses import USES
from chaos.history.operations import (
    Counted,
    CreateTopic,
    DeleteDead,
    Failed,
    Get,
    List,
    Listed,
    ListedTask,
    Redrive,
    Stamp,
    Topic,
    Value,
)
from chaos.history.run_folder import Final
from chaos.history.synthetic import SyntheticHistory, write_run
from models import operations as spec
from tests.chaos.test_promises import both, broken, entry, explanation, found, judged

RETENTION_MS = 3_600_000


class OperatedHistory(SyntheticHistory):
    """With the requests of operators; the specification says what follows from them."""

    def _of_topic(self, op: str, call: spec.Operation, read: Callable[[Any], Value]) -> Any:
        return self.op("o", op, Topic(self.topic), call, read, request_id=self._request_id())

    def pause(self) -> None:
        self._of_topic("pause", spec.Configure(True, 0, RETENTION_MS), lambda _: Value())

    def resume(self) -> None:
        self._of_topic("resume", spec.Configure(False, 0, RETENTION_MS), lambda _: Value())

    def purge(self) -> None:
        self._of_topic("purge", spec.Purge(100), lambda result: Counted(result[0]))

    def redrive_all(self) -> None:
        self.op(
            "o", "redrive", Redrive(self.topic), spec.Redrive((), 100),
            lambda result: Counted(result[0]), request_id=self._request_id(),
        )  # fmt: skip

    def delete_dead(self, task_id: str, expected: int | None = None) -> None:
        self.op(
            "o", "delete_dead", DeleteDead(self.topic, task_id, expected),
            spec.DeleteDead(task_id, expected),
            lambda result: Stamp(**self._stamp(result[1])), request_id=self._request_id(),
        )  # fmt: skip

    def list(self, state: spec.State) -> None:
        tasks = [
            ListedTask(
                id=task.id, revision=task.revision, state=task.state.name.lower(),  # type: ignore[arg-type]
                incarnation=task.incarnation, promotion=task.promotion, attempt=task.attempt,
                run=task.run, due_ms=task.due_ms,
            )
            for task in self.shard.tasks.values()
            if task.state == state
        ]  # fmt: skip
        request = List(self.topic, state.name.lower())  # type: ignore[arg-type]
        self.op("o", "list", request, None, lambda _: Listed(tasks))


def paused() -> OperatedHistory:
    """A task becomes due while its topic is paused, and is delivered afterwards."""
    history = OperatedHistory()
    history.enqueue("a", delay_ms=500)
    history.pause()
    history.wait(2.0)
    history.promote()
    history.resume()
    history.promote()
    history.ack(history.lease())
    return history


def promoted_in_a_pause(history: OperatedHistory) -> None:
    entry(history, "promote")["at_ms"] -= 1_000


def delivered_in_a_pause(history: OperatedHistory) -> None:
    """By the replies alone."""
    for event in (*both(history, "retrieve"), *both(history, "ack")):
        event["time_ns"] -= 1_000_000_000
    history.events.sort(key=lambda event: event["time_ns"])
    history.journal = [each for each in history.journal if each["op"] == "enqueue"]


def purged() -> OperatedHistory:
    """One task is scheduled, one leased, and one comes after the purge."""
    history = OperatedHistory()
    history.enqueue("b")
    history.promote()
    history.retrieve()
    history.enqueue("a", delay_ms=500)
    history.purge()
    history.wait(1.0)
    history.enqueue("c")
    history.promote()
    history.ack(history.lease())
    return history


def _revive(history: OperatedHistory, *, entries: bool) -> None:
    """As if the purge had missed a task: it was promoted and delivered."""
    purge = next(each for each in history.journal if each["op"] == "purge" and each["id"] == "a")
    lease = found(history, "retrieve", nth=1)["reply"]["leases"][0]
    if entries:
        promote = entry(history, "promote", 1)
        again = {"id": "a", "incarnation": purge["incarnation"], "revision": purge["revision"]}
        at = history.journal.index(promote)
        history.journal.insert(at, promote | again | {"from": "scheduled"})
        history.journal.remove(purge)
    else:
        lease |= {"id": "a", "incarnation": purge["incarnation"], "payload": "payload of a"}
        found(history, "ack", "invoke")["request"]["id"] = "a"


def missed_by_a_purge(history: OperatedHistory) -> None:
    _revive(history, entries=True)


def delivered_after_a_purge(history: OperatedHistory) -> None:
    _revive(history, entries=False)


def counted_by_a_purge(history: OperatedHistory) -> None:
    found(history, "purge")["reply"]["count"] = 3


def redriven() -> OperatedHistory:
    """Three dead tasks: one is redriven by its id, one with all, and one deleted."""
    history = OperatedHistory()
    for task_id in "abc":
        history.enqueue(task_id)
        history.promote()
        history.nack(history.lease(), dead=True)
    history.list(spec.State.DEAD)
    history.redrive("a")
    history.delete_dead("c", history.shard.tasks["c"].revision)
    history.redrive_all()
    history.promote()
    for lease in history.retrieve(max_tasks=2):
        history.ack(lease)
    return history


def redrive_without_effect(history: OperatedHistory) -> None:
    found(history, "redrive", nth=1)["reply"]["count"] = 5


def redriven_twice(history: OperatedHistory) -> None:
    """The request is gone, and its effect is there."""
    one = entry(history, "redrive")
    history.journal.insert(history.journal.index(one) + 1, dict(one))
    history.journal.insert(history.journal.index(one) + 2, dict(one))


def listed_as_another(history: OperatedHistory) -> None:
    found(history, "list")["reply"]["tasks"][0]["state"] = "ready"


def deleted_at_another_revision(history: OperatedHistory) -> None:
    found(history, "delete_dead", "invoke")["request"]["expected_revision"] -= 1


def delivered_after_its_deletion(history: OperatedHistory) -> None:
    gone = next(each for each in history.journal if each["op"] == "purge")
    found(history, "retrieve", nth=3)["reply"]["leases"][0] |= {
        "id": "c", "incarnation": gone["incarnation"], "payload": "payload of c",
    }  # fmt: skip


def short_lived() -> OperatedHistory:
    """A topic that is made during the run, and deleted with a task in it."""
    history = OperatedHistory("short")
    history.op("o", "create_topic", CreateTopic("short"), None, lambda _: Value())
    history.enqueue("a")
    history.promote()
    history.ack(history.lease())
    history.enqueue("b", delay_ms=60_000)
    history.op("o", "delete_topic", Topic("short"), None, lambda _: Counted(1))
    history._event("o", "invoke", "get", request=Get("short", "b"))
    history.now_ns += 1_000_000
    history._event("o", "fail", "get", reply=Failed("TOPIC_NOT_FOUND"))
    return history


def judged_without_its_end(folder: Path, history: OperatedHistory) -> Results:
    """The topic is none of the run's, and has no journal."""
    run = write_run(folder, history)
    note, *events = run.history.read_text().splitlines()
    first = json.loads(note)
    first["reply"]["topics"] = {"other": first["reply"]["topics"]["short"]}
    run.history.write_text("\n".join([json.dumps(first), *events]) + "\n")
    run.journal.write_text("")
    run.write_final(Final({}, drained=True))
    return judge(run).results


def test_a_topic_that_was_deleted_holds_nothing_to_the_end(tmp_path: Path) -> None:
    results = judged_without_its_end(tmp_path, short_lived())
    assert results.verdict == "VALID", explanation(results)


def test_a_topic_is_not_denied_before_it_is_deleted(tmp_path: Path) -> None:
    history = short_lived()
    for event in both(history, "delete_topic"):
        event["time_ns"] += 1_000_000_000
    history.events.sort(key=lambda event: event["time_ns"])
    results = judged_without_its_end(tmp_path, history)
    assert "G2" in broken(results), explanation(results)
    assert "topic short was there" in explanation(results)


def test_nothing_is_delivered_from_a_topic_that_was_deleted(tmp_path: Path) -> None:
    history = short_lived()
    enqueued_ns = found(history, "enqueue")["time_ns"]
    for number, event in enumerate(both(history, "delete_topic"), 1):
        event["time_ns"] = enqueued_ns + number * 100_000
    history.events.sort(key=lambda event: event["time_ns"])
    assert "G4" in broken(judged_without_its_end(tmp_path, history))


CASES: list[tuple[str, Callable[[], OperatedHistory], Callable[[OperatedHistory], None], str]] = [
    ("G5", paused, promoted_in_a_pause, "was promoted .* while its topic was paused"),
    ("G5", paused, delivered_in_a_pause, "was delivered at .* while its topic was paused"),
    ("G4", purged, missed_by_a_purge, "was ended by purge .* promote was done to it"),
    ("G4", purged, delivered_after_a_purge, "was ended by purge at .*, and delivered at"),
    ("G2", purged, counted_by_a_purge, "counted 3 tasks in the purge .* the journal has 2"),
    ("G2", redriven, redrive_without_effect, "counted 5 tasks in the redrive .* the journal has 2"),
    ("G13", redriven, redriven_twice, "3 times redrive"),
    ("G2", redriven, listed_as_another, "seen as ready"),
    ("G8", redriven, deleted_at_another_revision, "if it had revision"),
    ("G4", redriven, delivered_after_its_deletion, "was ended by delete_dead .* delivered at"),
]


@pytest.mark.parametrize(
    ("promise", "history", "edit", "says"), CASES, ids=[each[2].__name__ for each in CASES]
)
def test_an_effect_that_is_missing_is_named(
    tmp_path: Path,
    promise: str,
    history: Callable[[], OperatedHistory],
    edit: Callable[[OperatedHistory], None],
    says: str,
) -> None:
    whole = judged(tmp_path / "whole", history())
    assert whole.verdict == "VALID", explanation(whole)
    wrong = history()
    edit(wrong)
    results = judged(tmp_path / "broken", wrong)
    assert promise in broken(results), explanation(results)
    (named,) = [each for each in results.promises if each.id == promise]
    summaries = [each["summary"] for each in named.anomalies]
    assert any(re.search(says, each) for each in summaries), summaries


def test_a_pause_that_another_request_may_have_ended_proves_nothing(tmp_path: Path) -> None:
    """A resume without a reply may take effect for as long as its request is valid."""
    history = OperatedHistory()
    history.enqueue("a", delay_ms=500)
    history.op("o", "resume", Topic(history.topic), None, None, lost=True)
    history.pause()
    history.wait(1.0)
    history._of_topic("resume", spec.Configure(False, 0, RETENTION_MS), lambda _: Value())
    found(history, "resume")["type"] = "info"
    found(history, "resume", "info", 1)["reply"] = {"error": "OUTCOME_UNKNOWN"}
    history.promote()
    history.ack(history.lease())
    assert not broken(judged(tmp_path, history))


def test_uses_count_effects(tmp_path: Path) -> None:
    def used(history: OperatedHistory, name: str) -> int:
        run = write_run(tmp_path / name, history)
        return USES[name](judge(run).view)

    assert used(paused(), "pauses that held tasks back") == 1
    assert used(purged(), "tasks purged") == 2
    assert used(redriven(), "tasks redriven and delivered") == 2
    assert used(redriven(), "dead tasks deleted") == 1
    assert used(redriven(), "tasks listed") == 3
    assert used(redriven(), "changes at their revision") == 1
    nothing = OperatedHistory()
    nothing.pause()
    nothing.resume()
    nothing.purge()
    nothing.redrive_all()
    nothing.enqueue("a")
    assert not any(used(nothing, name) for name in USES)
