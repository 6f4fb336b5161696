"""Promises have several rules; each is broken here where no other rule of that promise sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.history.notes import LossNote
from chaos.history.operations import (
    Lease,
    RetrySettings,
)
from chaos.history.synthetic import SyntheticHistory
from tests.chaos.test_hard_cases import moved
from tests.chaos.test_promises import (
    broken,
    claimed,
    entry,
    found,
    g12_two_owners,
    judged,
    once,
    stories,
    two_leases,
)  # fmt: skip


def accept(tale: SyntheticHistory, op: str, **reply: object) -> None:
    event = found(tale, op, "fail")
    event["type"], event["reply"] = "ok", {"revision": 99, **reply}


def order() -> SyntheticHistory:
    tale = once()
    tale.get("a")
    found(tale, "get")["reply"]["revision"] = 1
    return tale


def early_by_the_store() -> SyntheticHistory:
    tale = once()
    found(tale, "retrieve")["reply"]["leases"][0]["due_ms"] += 5_000
    return tale


def shared_by_the_store() -> SyntheticHistory:
    tale = two_leases()
    del found(tale, "retrieve", "invoke")["request"]["lease_ms"]
    found(tale, "retrieve")["reply"]["leases"][0]["expire_ms"] += 60_000
    return tale


def shared_by_the_controller() -> SyntheticHistory:
    tale = two_leases()
    found(tale, "retrieve", "invoke")["request"]["lease_ms"] += 60_000
    return tale


def rescheduled() -> SyntheticHistory:
    tale = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    tale.enqueue("a")
    tale.promote()
    lease = tale.lease(lease_ms=500)
    tale.wait(1)
    tale.reap()
    tale.reschedule("a", delay_ms=60_000)
    tale.ack(lease)
    accept(tale, "ack")
    return tale


def revoked() -> SyntheticHistory:
    tale = SyntheticHistory()
    tale.enqueue("a")
    tale.promote()
    lease = tale.lease()
    tale.cancel("a", revoke=True)
    tale.extend(lease)
    accept(tale, "extend")
    return tale


def two_verdicts() -> SyntheticHistory:
    tale = once()
    (lease,) = found(tale, "retrieve")["reply"]["leases"]
    tale.nack(_lease(lease))
    accept(tale, "nack", state="dead")
    return tale


def told_again() -> SyntheticHistory:
    tale = SyntheticHistory()
    tale.enqueue("a")
    tale.promote()
    tale.ack(tale.lease(request_id="r"))
    tale.retrieve(request_id="r")
    lease = found(tale, "retrieve")["reply"]["leases"][0]
    revision = found(tale, "ack")["reply"]["revision"]
    found(tale, "retrieve", nth=1)["reply"] = {"leases": [lease | {"revision": revision}]}
    return tale


def moved_twice() -> SyntheticHistory:
    tale = moved()
    again = entry(tale, "reschedule")
    for _ in range(2):
        tale.journal.insert(tale.journal.index(again) + 1, dict(again))
    return tale


def late_long_after_a_fault() -> SyntheticHistory:
    tale = SyntheticHistory()
    tale.fault("kill", "n1", "inject")
    tale.fault("kill", "n1", "heal")
    tale.wait(30)
    tale.enqueue("a")
    tale.wait(0.6)
    tale.promote()
    tale.ack(tale.lease())
    return tale


def delivered_twice_by_one_promotion() -> SyntheticHistory:
    """The second delivery is of a lineage that the surviving journal does not hold."""
    tale = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    tale.enqueue("a")
    tale.promote()
    tale.lease(lease_ms=500)
    tale.wait(1)
    tale.reap()
    tale.promote()
    tale.ack(tale.lease())
    found(tale, "retrieve", nth=1)["reply"]["leases"][0] |= {"promotion": 1, "lineage": ""}
    return tale


def not_found_while_its_tombstone_lives() -> SyntheticHistory:
    tale = once()
    tale.get("a")
    event = found(tale, "get")
    event["type"], event["reply"] = "fail", {"error": "TASK_NOT_FOUND"}
    return tale


def served_after_a_loss() -> SyntheticHistory:
    """The read is of another task: nothing about itself contradicts what was lost."""
    tale = SyntheticHistory()
    tale.enqueue("a", delay_ms=60_000)
    tale.note("harness", "loss", LossNote("work", 0))
    tale.enqueue("b", delay_ms=60_000)
    return tale


def delivered_as_two_incarnations() -> SyntheticHistory:
    """The second is of a lineage that the surviving journal does not hold."""
    tale = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    tale.enqueue("a")
    tale.promote()
    tale.release(tale.lease())
    tale.ack(tale.lease())
    found(tale, "retrieve", nth=1)["reply"]["leases"][0] |= {"incarnation": 99, "lineage": ""}
    return tale


def handed_back_twice() -> SyntheticHistory:
    """The next attempt follows from the wrong count, so that only the release shows it."""
    tale = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    tale.enqueue("a")
    tale.promote()
    tale.nack(tale.lease())
    tale.promote()
    tale.release(tale.lease())
    entry(tale, "release")["attempt"] = 0
    return tale


def cancelled_and_not_found() -> SyntheticHistory:
    """Only the cancel was acknowledged."""
    tale = SyntheticHistory()
    tale.enqueue("a", lost=True)
    tale.cancel("a", process="q")
    tale.get("a", process="q")
    event = found(tale, "get")
    event["type"], event["reply"] = "fail", {"error": "TASK_NOT_FOUND"}
    return tale


def debounced_beyond_its_limit() -> SyntheticHistory:
    tale = SyntheticHistory()
    tale.enqueue("a", delay_ms=200, limit_ms=400, on_conflict="debounce")
    found(tale, "enqueue")["reply"]["due_ms"] += 300
    return tale


def due_and_never_promoted() -> SyntheticHistory:
    """The journal ends with the enqueue."""
    tale = SyntheticHistory()
    tale.enqueue("a")
    tale.wait(2)
    tale.get("a")
    return tale


def _lease(lease: dict[str, object]) -> Lease:
    return Lease(**lease)  # type: ignore[arg-type]


RULES: list[tuple[str, Callable[[], SyntheticHistory], bool]] = [
    ("G9", order, True),
    ("G5", early_by_the_store, False),
    ("G7", shared_by_the_store, False),
    ("G7", shared_by_the_controller, False),
    ("G8", rescheduled, False),
    ("G8", revoked, False),
    ("G8", two_verdicts, False),
    ("G9", told_again, False),
    ("G13", moved_twice, True),
    ("G6", late_long_after_a_fault, True),
    ("G3", delivered_twice_by_one_promotion, True),
    ("G2", not_found_while_its_tombstone_lives, False),
    ("G2", served_after_a_loss, False),
    ("G13", delivered_as_two_incarnations, True),
    ("G10", handed_back_twice, True),
    ("G4", cancelled_and_not_found, False),
    ("G6", debounced_beyond_its_limit, False),
    ("G6", due_and_never_promoted, True),
]


@pytest.mark.parametrize(
    ("promise", "tale", "journal"), RULES, ids=[f"{p}-{t.__name__}" for p, t, _ in RULES]
)
def test_each_rule_finds_what_it_is_for(
    tmp_path: Path, promise: str, tale: Callable[[], SyntheticHistory], journal: bool
) -> None:
    results = judged(tmp_path, tale(), journal=journal)
    assert promise in broken(results), stories(results)


def test_what_a_lost_lineage_claimed_is_void(tmp_path: Path) -> None:
    tale = claimed()
    g12_two_owners(tale)
    found(tale, "leader", "info", 0)["reply"]["lineage"] = "dead"
    assert not broken(judged(tmp_path, tale))


def test_a_store_that_refuses_after_a_loss_is_not_blamed(tmp_path: Path) -> None:
    tale = SyntheticHistory()
    tale.enqueue("a", delay_ms=60_000)
    tale.note("harness", "loss", LossNote("work", 0))
    tale.enqueue("b", delay_ms=60_000, lost=True, arrives=False)
    found(tale, "enqueue", "info")["reply"] = {"error": "ROLLBACK_DETECTED"}
    assert not broken(judged(tmp_path, tale))
