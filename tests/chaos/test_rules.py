"""Promises have several rules; each is broken here where no other rule of that promise sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.checker.bounds import Bounds
from chaos.history.notes import CreditNote, LossNote
from chaos.history.operations import (
    Lease,
    RetrySettings,
)
from chaos.history.synthetic import SyntheticHistory
from tests.chaos.test_hard_cases import moved
from tests.chaos.test_promises import (
    broken,
    entry,
    explanation,
    found,
    judged,
    once,
    two_leases,
)  # fmt: skip


def accept(history: SyntheticHistory, op: str, **reply: object) -> None:
    event = found(history, op, "fail")
    event["type"], event["reply"] = "ok", {"revision": 99, **reply}


def order() -> SyntheticHistory:
    history = once()
    history.get("a")
    found(history, "get")["reply"]["revision"] = 1
    return history


def early_by_the_store() -> SyntheticHistory:
    history = once()
    found(history, "retrieve")["reply"]["leases"][0]["due_ms"] += 5_000
    return history


def shared_by_the_store() -> SyntheticHistory:
    history = two_leases()
    del found(history, "retrieve", "invoke")["request"]["lease_ms"]
    found(history, "retrieve")["reply"]["leases"][0]["expire_ms"] += 60_000
    return history


def shared_by_the_controller() -> SyntheticHistory:
    history = two_leases()
    found(history, "retrieve", "invoke")["request"]["lease_ms"] += 60_000
    return history


def shared_after_an_extension() -> SyntheticHistory:
    """The second lease is a reply of a stream, whose credit was given before the extension."""
    history = two_leases()
    first = found(history, "retrieve")["reply"]["leases"][0]
    request = {"topic": "work", "id": "a", "token": first["token"], "lease_ms": 60_000}
    reply = {
        "revision": first["revision"], "store_ms": first["store_ms"] + 100,
        "expire_ms": first["expire_ms"] + 60_000,
    }  # fmt: skip
    at_ns = found(history, "retrieve")["time_ns"] + 100_000_000
    for kind, value in (("invoke", {"request": request}), ("ok", {"reply": reply})):
        event = {"time_ns": at_ns, "process": "w", "type": kind, "op": "extend"}
        history.events.append(event | value)
        at_ns += 1_000_000
    found(history, "retrieve", "invoke", 1)["time_ns"] = at_ns - 50_000_000
    history.events.sort(key=lambda event: event["time_ns"])
    return history


def rescheduled() -> SyntheticHistory:
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    lease = history.lease(lease_ms=500)
    history.wait(1)
    history.reap()
    history.reschedule("a", delay_ms=60_000)
    history.ack(lease)
    accept(history, "ack")
    return history


def revoked() -> SyntheticHistory:
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    lease = history.lease()
    history.cancel("a", revoke=True)
    history.extend(lease)
    accept(history, "extend")
    return history


def two_verdicts() -> SyntheticHistory:
    history = once()
    (lease,) = found(history, "retrieve")["reply"]["leases"]
    history.nack(_lease(lease))
    accept(history, "nack", state="dead")
    return history


def delivered_after_its_ack() -> SyntheticHistory:
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.ack(history.lease(request_id="r"))
    history.retrieve(request_id="r")
    lease = found(history, "retrieve")["reply"]["leases"][0]
    revision = found(history, "ack")["reply"]["revision"]
    found(history, "retrieve", nth=1)["reply"] = {"leases": [lease | {"revision": revision}]}
    return history


def moved_twice() -> SyntheticHistory:
    history = moved()
    again = entry(history, "reschedule")
    for _ in range(2):
        history.journal.insert(history.journal.index(again) + 1, dict(again))
    return history


def late_long_after_a_fault() -> SyntheticHistory:
    history = SyntheticHistory()
    history.fault("kill", "n1", "inject")
    history.fault("kill", "n1", "heal")
    history.wait(30)
    history.enqueue("a")
    history.wait(0.6)
    history.promote()
    history.ack(history.lease())
    return history


def late_behind_a_takeover() -> SyntheticHistory:
    """The healthy bound does not come on top of the time that a standby has to take over."""
    history = SyntheticHistory()
    history.fault("pause", "scheduler-leader", "inject")
    history.fault("pause", "scheduler-leader", "heal")
    history.enqueue("a")
    history.wait(Bounds().takeover_ms / 1_000 + 0.1)
    history.promote()
    history.ack(history.lease())
    return history


def delivered_twice_by_one_promotion() -> SyntheticHistory:
    """The second delivery is of a lineage that the surviving journal does not hold."""
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.lease(lease_ms=500)
    history.wait(1)
    history.reap()
    history.promote()
    history.ack(history.lease())
    found(history, "retrieve", nth=1)["reply"]["leases"][0] |= {"promotion": 1, "lineage": ""}
    return history


def not_found_while_its_tombstone_lives() -> SyntheticHistory:
    history = once()
    history.get("a")
    event = found(history, "get")
    event["type"], event["reply"] = "fail", {"error": "TASK_NOT_FOUND"}
    return history


def served_after_a_loss() -> SyntheticHistory:
    """The read is of another task: nothing about itself contradicts what was lost."""
    history = SyntheticHistory()
    history.enqueue("a", delay_ms=60_000)
    history.note("harness", "loss", LossNote("work", 0))
    history.enqueue("b", delay_ms=60_000)
    return history


def delivered_as_two_incarnations() -> SyntheticHistory:
    """The second is of a lineage that the surviving journal does not hold."""
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.release(history.lease())
    history.ack(history.lease())
    found(history, "retrieve", nth=1)["reply"]["leases"][0] |= {"incarnation": 99, "lineage": ""}
    return history


def handed_back_twice() -> SyntheticHistory:
    """The next attempt follows from the wrong count, so that only the release shows it."""
    history = SyntheticHistory(policy=RetrySettings(5, 0, 0, 1.0, 0.0))
    history.enqueue("a")
    history.promote()
    history.nack(history.lease())
    history.promote()
    history.release(history.lease())
    entry(history, "release")["attempt"] = 0
    return history


def cancelled_and_not_found() -> SyntheticHistory:
    """Only the cancel was acknowledged."""
    history = SyntheticHistory()
    history.enqueue("a", lost=True)
    history.cancel("a", process="q")
    history.get("a", process="q")
    event = found(history, "get")
    event["type"], event["reply"] = "fail", {"error": "TASK_NOT_FOUND"}
    return history


def debounced_beyond_its_limit() -> SyntheticHistory:
    history = SyntheticHistory()
    history.enqueue("a", delay_ms=200, limit_ms=400, on_conflict="debounce")
    found(history, "enqueue")["reply"]["due_ms"] += 300
    return history


def due_and_never_promoted() -> SyntheticHistory:
    """The journal ends with the enqueue."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.wait(2)
    history.get("a")
    return history


def _lease(lease: dict[str, object]) -> Lease:
    return Lease(**lease)  # type: ignore[arg-type]


RULES: list[tuple[str, Callable[[], SyntheticHistory], bool]] = [
    ("G9", order, True),
    ("G5", early_by_the_store, False),
    ("G7", shared_by_the_store, False),
    ("G7", shared_by_the_controller, False),
    ("G7", shared_after_an_extension, False),
    ("G8", rescheduled, False),
    ("G8", revoked, False),
    ("G8", two_verdicts, False),
    ("G9", delivered_after_its_ack, False),
    ("G13", moved_twice, True),
    ("G6", late_long_after_a_fault, True),
    ("G6", late_behind_a_takeover, True),
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
    ("promise", "history", "journal"), RULES, ids=[f"{p}-{t.__name__}" for p, t, _ in RULES]
)
def test_each_rule_finds_what_it_is_for(
    tmp_path: Path, promise: str, history: Callable[[], SyntheticHistory], journal: bool
) -> None:
    results = judged(tmp_path, history(), journal=journal)
    assert promise in broken(results), explanation(results)


def test_a_store_that_refuses_after_a_loss_is_not_blamed(tmp_path: Path) -> None:
    history = SyntheticHistory()
    history.enqueue("a", delay_ms=60_000)
    history.note("harness", "loss", LossNote("work", 0))
    history.enqueue("b", delay_ms=60_000, lost=True, arrives=False)
    found(history, "enqueue", "info")["reply"] = {"error": "ROLLBACK_DETECTED"}
    assert not broken(judged(tmp_path, history))


def busy_streams(gap_ms: int) -> SyntheticHistory:
    """A stream with credit for a second, which gets another task every so often; one task waits."""
    history = SyntheticHistory()
    history.enqueue("a")
    history.promote()
    history.note("5" * 16, "credit", CreditNote(4))
    for number in range(1_000 // gap_ms):
        history.wait(gap_ms / 1_000)
        history.enqueue(f"b{number}")
        history.promote()
        lease = next(each for each in history.retrieve(max_tasks=9) if each.id != "a")
        reply, request = found(history, "retrieve", nth=-1), history.events[-2]
        reply["reply"]["leases"] = [
            each for each in reply["reply"]["leases"] if each["id"] == lease.id
        ]
        request["request"] |= {"request_id": f"{'5' * 16}/{number + 1}", "max_tasks": 4}
        history.ack(lease)
    history.note("5" * 16, "credit", CreditNote(0))
    return history


@pytest.mark.parametrize(("gap_ms", "waits"), [(100, False), (900, True)])
def test_a_stream_that_brings_the_tasks_of_a_backlog_does_not_wait(
    tmp_path: Path, gap_ms: int, *, waits: bool
) -> None:
    history = busy_streams(gap_ms)
    # It was leased with the first of the others; here it stays ready.
    history.journal = [
        each
        for each in history.journal
        if each["id"] != "a" or each["op"] in {"enqueue", "promote"}
    ]
    assert ("G14" in broken(judged(tmp_path, history))) == waits
