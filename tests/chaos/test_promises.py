"""Each promise: the smallest history that keeps it, and the smallest that breaks it and no other.

The specification generates the correct ones, so any finding of the checkers in them is the
checkers' mistake. Each is then broken by hand, and exactly the one promise must be named: with its
checker left out, nothing may notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.checker.judge import Results, judge
from chaos.checker.promises import CHECKERS
from chaos.history.operations import (
    RetrySettings,
)
from chaos.history.synthetic import SyntheticHistory, write_run
from models.promises import PROMISES

Events = list[dict[str, Any]]


def judged(
    folder: Path, history: SyntheticHistory, *, without: str = "", **options: bool
) -> Results:
    run = write_run(folder, history, **options)
    return judge(run, checkers=[c for c in CHECKERS if c.promise != without]).results


def broken(results: Results) -> set[str]:
    return {promise.id for promise in results.promises if promise.verdict == "INVALID"}


def explanation(results: Results) -> str:
    return "\n".join(
        [a["summary"] for p in results.promises for a in p.anomalies]
        + [f"{p.id}: {why}" for p in results.promises for why in p.unknown]
        + results.problems
    )


def found(history: SyntheticHistory, op: str, kind: str = "ok", nth: int = 0) -> dict[str, Any]:
    """The nth event of this operation."""
    return [e for e in history.events if e["op"] == op and e["type"] == kind][nth]


def both(history: SyntheticHistory, op: str, nth: int = 0) -> Events:
    """An operation's two events."""
    return [found(history, op, "invoke", nth), found(history, op, "ok", nth)]


def entry(history: SyntheticHistory, op: str, nth: int = 0) -> dict[str, Any]:
    return [e for e in history.journal if e["op"] == op][nth]


def once(**options: Any) -> SyntheticHistory:
    """One task: enqueued, promoted, delivered, acked."""
    history = SyntheticHistory(**options)
    history.enqueue("a", delay_ms=3_000)
    history.wait(3.1)
    history.promote()
    history.ack(history.lease())
    return history


# How each promise is broken ------------------------------------------------------------------


def g1(history: SyntheticHistory) -> None:
    found(history, "retrieve")["reply"]["leases"][0]["payload"] = "another"


def g2_without_ack(history: SyntheticHistory) -> None:
    for event in both(history, "ack"):
        history.events.remove(event)


def g3(history: SyntheticHistory) -> None:
    entry(history, "promote")["promotion"] = 2
    found(history, "retrieve")["reply"]["leases"][0]["promotion"] = 2


def cancelled() -> SyntheticHistory:
    history = SyntheticHistory()
    history.enqueue("a")
    history.cancel("a")
    return history


def g4_delivered(history: SyntheticHistory) -> None:
    """A delivery that only its worker knows of, as from a deposed master."""
    other = SyntheticHistory(seed=2)
    other.enqueue("a")
    other.promote()
    lease = other.lease()
    lease.revision = 1
    cancel = found(history, "cancel")
    lease.revision = cancel["reply"]["revision"]
    lease.incarnation = cancel["reply"]["incarnation"]
    for event in both(other, "retrieve"):
        event["time_ns"] += 5_000_000
        history.events.append(event)
    found(history, "retrieve")["reply"]["leases"][0] |= {
        "revision": lease.revision, "incarnation": lease.incarnation, "lineage": "",
    }  # fmt: skip


def refused_cancel() -> SyntheticHistory:
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    lease = history.lease()
    history.cancel("a")
    history.nack(lease)
    history.cancel("a")
    return history


def g4_said_too_late(history: SyntheticHistory) -> None:
    found(history, "cancel", "fail")["reply"]["error"] = "TASK_FINISHED"


def g5(history: SyntheticHistory) -> None:
    """The store's clock ran ahead: by its own time all is well."""
    for event in history.events:
        if event["op"] in {"retrieve", "ack"}:
            event["time_ns"] -= 2_000_000_000


def g6(history: SyntheticHistory) -> None:
    for name in ("promote", "lease", "ack"):
        entry(history, name)["at_ms"] += 400


def two_leases() -> SyntheticHistory:
    """The second worker gets it when the first one's lease has expired."""
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.lease(lease_ms=2_000)
    history.wait(2.1)
    history.reap()
    history.promote()
    history.ack(history.lease(process="v"), process="v")
    return history


def g7(history: SyntheticHistory) -> None:
    """The reply gave the first worker a longer lease, which the journal does not have."""
    found(history, "retrieve")["reply"]["leases"][0]["expire_ms"] += 60_000
    found(history, "retrieve", "invoke")["request"]["lease_ms"] += 60_000


def late_ack() -> SyntheticHistory:
    """An ack with an expired token that nothing has superseded is accepted."""
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    lease = history.lease(lease_ms=1_000)
    history.wait(1.1)
    history.reap()
    history.promote()
    second = history.lease(process="v")
    history.nack(lease)
    history.ack(second, process="v")
    return history


def g8(history: SyntheticHistory) -> None:
    """The stale token's nack is accepted, though it changed nothing that a client saw."""
    event = found(history, "nack", "fail")
    event["type"] = "ok"
    event["reply"] = {"revision": found(history, "ack")["reply"]["revision"], "state": "dead"}


def acked_and_seen() -> SyntheticHistory:
    history = once()
    history.get("a")
    return history


def g9(history: SyntheticHistory) -> None:
    found(history, "get")["reply"]["state"] = "ready"


def tried_twice() -> SyntheticHistory:
    history = SyntheticHistory(policy=RetrySettings(2, 500, 500, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.nack(history.lease())
    history.wait(0.6)
    history.promote()
    history.ack(history.lease())
    return history


def g10_too_often(history: SyntheticHistory) -> None:
    history.settings.policy.max_attempts = 1


def g10_too_soon(history: SyntheticHistory) -> None:
    history.settings.policy.initial_backoff_ms = history.settings.policy.max_backoff_ms = 1_000


def g11(history: SyntheticHistory) -> None:
    del history.shard.counts["succeeded"]  # type: ignore[attr-defined]


def led_twice() -> SyntheticHistory:
    history = once()
    history.lead()
    history.enqueue("b")
    history.promote()
    history.ack(history.lease())
    return history


def g12(history: SyntheticHistory) -> None:
    """A deposed leader's number turns up again."""
    entry(history, "promote", 1)["epoch"] = 1
    entry(history, "enqueue", 1)["epoch"] = 2


def two_leaders() -> SyntheticHistory:
    history = once()
    history.lead()
    history.enqueue("b")
    history.promote()
    history.ack(history.lease())
    return history


def g12_two_owners(history: SyntheticHistory) -> None:
    """The second leader's promotion is of the first one's epoch."""
    first = entry(history, "promote")["epoch"]
    for each in history.journal:
        each["epoch"] = first


def repeated() -> SyntheticHistory:
    """A Retrieve whose reply was lost for its caller, asked again with the same id."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.retrieve(request_id="r")
    (lease,) = history.retrieve(request_id="r")
    history.ack(lease)
    history.ack(lease)
    return history


def g13_ack(history: SyntheticHistory) -> None:
    found(history, "ack", nth=1)["reply"]["revision"] += 2


def g13_retrieve(history: SyntheticHistory) -> None:
    """The repeat brings another task's lease instead."""
    history.enqueue("b", process="q")
    history.promote()
    lease = history.lease(process="v", request_id="s")
    history.ack(lease, process="v")
    for event in both(history, "retrieve", 2):
        if event["type"] == "invoke":
            event["request"]["request_id"] = "r"


def ready_for_a_second() -> SyntheticHistory:
    """No worker waits for the task meanwhile."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.wait(1.0)
    history.ack(history.lease())
    return history


def g14(history: SyntheticHistory) -> None:
    """A Retrieve waits for 900 ms of that second, and comes back empty."""
    history.retrieve(process="v", wait_ms=900)
    begun, over = history.events[-2:]
    begun["time_ns"], over["time_ns"] = 50_000_000, 950_000_000
    history.events.sort(key=lambda event: event["time_ns"])


@dataclass(frozen=True)
class Break:
    promise: str
    history: Callable[[], SyntheticHistory]
    edit: Callable[[SyntheticHistory], None]
    says: str


BREAKS = [
    Break("G1", once, g1, "delivered with 'another'.*no client had enqueued"),
    Break("G2", once, g2_without_ack, "never ended, and is not held"),
    Break("G3", once, g3, "promoted as number 2 after number 0"),
    Break("G4", cancelled, g4_delivered, r"was cancelled at .*, delivered at"),
    Break("G4", refused_cancel, g4_said_too_late, "said to have finished.*not true"),
    Break("G5", once, g5, "ms early by the controller's clock"),
    Break("G6", once, g6, "ready 50. ms later"),
    Break("G7", two_leases, g7, "while the first had not been ended"),
    Break("G8", late_ack, g8, "delivered to another .*and nacked at"),
    Break("G9", acked_and_seen, g9, "was acked .*, seen ready"),
    Break("G10", tried_twice, g10_too_often, "attempt 2 of 1"),
    Break("G10", tried_twice, g10_too_soon, "sooner than the backoff of 1000 ms"),
    Break("G11", once, g11, "enqueued 1 and accounts for 0"),
    Break("G12", led_twice, g12, "in epoch 1 .* after the shard had been in epoch 2"),
    Break("G12", two_leaders, g12_two_owners, "in epoch 1, which was owned by"),
    Break("G13", repeated, g13_ack, "with the same token"),
    Break("G13", repeated, g13_retrieve, "by a repeat of request r"),
    Break("G14", ready_for_a_second, g14, "for 900 ms of that a worker waited"),
]
IDS = [f"{one.promise}-{one.edit.__name__}" for one in BREAKS]


@pytest.mark.parametrize("one", BREAKS, ids=IDS)
def test_the_smallest_history_that_breaks_it_breaks_only_it(tmp_path: Path, one: Break) -> None:
    whole = judged(tmp_path / "whole", one.history())
    assert whole.verdict == "VALID", explanation(whole)
    assert all(promise.verdict == "VALID" for promise in whole.promises), explanation(whole)

    history = one.history()
    one.edit(history)
    results = judged(tmp_path / "broken", history)
    assert broken(results) == {one.promise}, explanation(results)
    assert results.verdict == "INVALID"
    (anomalies,) = [p.anomalies for p in results.promises if p.id == one.promise]
    assert re.search(one.says, anomalies[0]["summary"]), anomalies
    blind = judged(tmp_path / "blind", history, without=one.promise)
    assert blind.verdict == "VALID", explanation(blind)


def test_every_promise_has_a_checker_and_a_history_that_breaks_it() -> None:
    ids = [promise.id for promise in PROMISES]
    assert [checker.promise for checker in CHECKERS] == ids
    assert {one.promise for one in BREAKS} == set(ids)
