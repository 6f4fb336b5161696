"""Edits of the journal, alone or together with the replies."""

from __future__ import annotations

from functools import partial

from tests.chaos.edits.base import Edited, Json, TaskTrace
from tests.chaos.edits.clients import MS, OTHER, delayed, has, once_delivered
from tests.chaos.edits.registry import edit

LOST = {
    "enqueue": "G2", "promote": "G3", "lease": "G3", "ack": "G9", "nack": "G8", "release": "G8",
    "snooze": "G8", "extend": "G8", "cancel": "G4", "reschedule": "G5",
}  # fmt: skip
"""The promise that breaks when the store does not have a transition that it acknowledged."""


def _lose(run: Edited, *, op: str) -> None:
    task = run.task(
        lambda s: (
            s.made(op) and (op in {"promote", "lease"} or s.answered(op)) and not s.answered("get")
        )
    )
    entry = task.made(op)[-1]
    run.journal.remove(entry)


for op, lost in LOST.items():
    # What comes next does not follow from what is left.
    promise = {"lease": "G7", "snooze": "G3", "nack": "G3", "reschedule": "G3"}.get(op, lost)
    edit(
        promise,
        f"An acknowledged {op} is not in the journal of the store that survived.",
        f"the_journal_lost_its_{op}",
    )(partial(_lose, op=op))


def _twice(run: Edited, *, op: str) -> None:
    entry = run.task(lambda s: s.made(op)).made(op)[0]
    run.journal.insert(run.journal.index(entry) + 1, dict(entry))


for op, promise in (
    ("promote", "G3"), ("lease", "G7"), ("ack", "G13"), ("nack", "G13"), ("release", "G13"),
    ("snooze", "G13"), ("cancel", "G4"), ("enqueue", "G13"),
):  # fmt: skip
    edit(promise, f"The store carried out one {op} twice.", f"the_journal_has_two_of_{op}")(
        partial(_twice, op=op)
    )


@edit("G3", "A promotion is numbered out of turn.")
def a_promotion_that_is_skipped(run: Edited) -> None:
    run.task(once_delivered).made("promote")[0]["promotion"] = 2


@edit("G5", "The store promoted the task before it was due.")
def promoted_early(run: Edited) -> None:
    entry = run.task(delayed).made("promote")[0]
    entry["at_ms"] = entry["due_ms"] - 100


@edit("G5", "The store leased the task before it was due.")
def leased_early(run: Edited) -> None:
    entry = run.task(delayed).made("lease")[0]
    entry["due_ms"] = entry["at_ms"] + 100


def _moved(run: Edited, *, by_ms: int) -> None:
    """Journal and replies agree on a due time that is not the one asked for."""
    task = run.task(delayed)
    for entry in task.entries:
        entry["due_ms"] += by_ms
    task.answered("enqueue")[0].reply["due_ms"] += by_ms
    for _, lease in task.leases:
        lease["due_ms"] += by_ms


for name, promise, by_ms in (("early", "G5", -200), ("late", "G6", 3)):
    edit(
        promise,
        f"Store and reply agree on a due time that is {abs(by_ms)} ms off what was asked for.",
        f"a_due_time_that_was_made_{name}",
    )(partial(_moved, by_ms=by_ms))


@edit("G6", "A task was promoted half a second after it was due, in quiet.")
def promoted_late(run: Edited) -> None:
    _delay(run, run.task(lambda s: delayed(s) and _quiet(run, s)), 500)


@edit("G6", "One task in many was late by far.")
def one_task_late_by_far(run: Edited) -> None:
    _delay(run, run.task(lambda s: delayed(s) and _quiet(run, s)), 300_000)


def _quiet(run: Edited, task: TaskTrace) -> bool:
    """Whether the task was over before the first fault."""
    first_ns = min(e["time_ns"] for e in run.events if e["op"] == "fault")
    return bool(task.answered("ack")[0].end["time_ns"] < first_ns)


def _delay(run: Edited, task: TaskTrace, by_ms: int) -> None:
    """The due time of all that is said of the task moves back, as it was asked for."""
    enqueue = task.answered("enqueue")[0]
    enqueue.request["delay_ms"] -= by_ms if enqueue.request["delay_ms"] > by_ms else 0
    shift_ms = task.made("promote")[0]["at_ms"] - by_ms - task.made("enqueue")[0]["due_ms"]
    enqueue.request["delay_ms"] += 0
    for entry in task.entries:
        entry["due_ms"] += shift_ms
    enqueue.reply["due_ms"] += shift_ms
    for _, lease in task.leases:
        lease["due_ms"] += shift_ms


@edit("G12", "The journal goes back to an older epoch.")
def an_older_epoch(run: Edited) -> None:
    promotions = [entry for entry in run.journal if entry["op"] == "promote"]
    promotions[-1]["epoch"] = 0


@edit("G2", "A replica does not hold what its master does: the next failover loses it.")
def a_replica_that_differs(run: Edited) -> None:
    run.final["differing"] = ["ddq:tasks:{mixed1}"]


@edit("G12", "Two schedulers moved tasks of one shard in one epoch.")
def an_epoch_with_two_owners(run: Edited) -> None:
    promotions = [entry for entry in run.journal if entry["op"] == "promote"]
    promotions[-1]["owner"] = OTHER[:16]


@edit("G12", "An expiry is of another owner than the promotions of its epoch.")
def an_expiry_by_another_owner(run: Edited) -> None:
    promotion = next(entry for entry in run.journal if entry["op"] == "promote")
    promotion["owner"] = OTHER[:16]


@edit("G2", "The lineage of an acknowledged enqueue is not that of the surviving store.")
def an_enqueue_of_a_lineage_that_is_gone(run: Edited) -> None:
    task = run.task(delayed)
    for entry in task.entries:
        run.journal.remove(entry)
    _uncount(run, task)
    for call in task.calls:
        if call.ok:
            call.reply["lineage"] = OTHER
    for _, lease in task.leases:
        lease["lineage"] = OTHER


def _uncount(run: Edited, task: TaskTrace) -> None:
    """The final counts without a task that was acked."""
    first = task.entries[0]
    counts: Json = run.final["topics"][task.topic]["shards"][first.get("shard", 0)]
    counts["enqueued"] -= 1
    counts["succeeded"] -= 1


def _count(run: Edited, *, name: str) -> None:
    counts = run.final["topics"]["mixed1"]["shards"][0]
    counts[name] = counts.get(name, 0) + 1


for name in (
    "enqueued",
    "scheduled",
    "ready",
    "leased",
    "succeeded",
    "dead",
    "cancelled",
    "purged",
):
    edit(
        "G11",
        f"A shard counts one {name} more than there are.",
        f"one_more_{name}_than_there_are",
    )(partial(_count, name=name))


@edit("G11", "A task counts as enqueued and as succeeded that the journal does not know.")
def a_balanced_count_that_is_wrong(run: Edited) -> None:
    _count(run, name="enqueued")
    _count(run, name="succeeded")


@edit("G11", "A shard had acknowledged more tasks than it counts later.")
def a_count_that_falls(run: Edited) -> None:
    for after_ms, enqueued in ((100, 50), (200, 49)):
        counts = {"enqueued": enqueued, "scheduled": enqueued}
        run.insert(
            run.end_ns // 2 + after_ms * MS, "stats", {"topic": "mixed1"},
            {"shards": [counts, counts]},
        )  # fmt: skip


@edit("G4", "What the store cancelled it leased afterwards.")
def the_store_leases_what_it_cancelled(run: Edited) -> None:
    task = run.task(lambda s: s.answered("cancel") and not s.leases)
    cancel = task.made("cancel")[0]
    lease = cancel | {"op": "lease", "from": "cancelled", "to": "leased"}
    lease["revision"] += 1
    run.journal.insert(run.journal.index(cancel) + 1, lease)


@edit("G9", "What the store finished it leased afterwards.")
def the_store_leases_what_was_acked(run: Edited) -> None:
    ack = run.task(once_delivered).made("ack")[0]
    lease = ack | {"op": "lease", "from": "succeeded", "to": "leased"}
    lease["revision"] += 1
    run.journal.insert(run.journal.index(ack) + 1, lease)


@edit("G7", "The store leased a task that no request asked for, and took the lease back.")
def a_lease_of_no_request(run: Edited) -> None:
    task = run.task(lambda s: delayed(s) and _quiet(run, s))
    promote, lease = task.made("promote")[0], task.made("lease")[0]
    at = run.journal.index(lease)
    other = {"revision": promote["revision"], "at_ms": promote["at_ms"], "lineage": OTHER[:16]}
    run.journal[at:at] = [
        lease | other,
        lease | other | {"op": "release", "from": "leased", "to": "ready", "attempt": 0},
    ]


@edit("G10", "A task was leased more often than its policy allows.")
def one_attempt_too_many(run: Edited) -> None:
    policy = next(e for e in run.events if e["op"] == "run")["reply"]["topics"]
    for topic in policy.values():
        topic["policy"]["max_attempts"] = 1


@edit("G10", "The next attempt came before the backoff was over.")
def a_backoff_that_is_short(run: Edited) -> None:
    for topic in next(e for e in run.events if e["op"] == "run")["reply"]["topics"].values():
        topic["policy"]["initial_backoff_ms"] = 5_000
        topic["policy"]["max_backoff_ms"] = 10_000


@edit("G10", "The count of attempts did not move by one.")
def an_attempt_that_is_counted_twice(run: Edited) -> None:
    run.task(once_delivered).made("lease")[0]["attempt"] = 2


@edit("G8", "A transition is of an incarnation that had given way to another.")
def a_transition_of_an_old_incarnation(run: Edited) -> None:
    task = run.task(has("run_again"))
    task.made("promote")[-1]["incarnation"] = 1


@edit("G13", "A repeat whose reply was lost made a second task, which was delivered and acked.")
def an_unknown_repeat_that_makes_a_second_task(run: Edited) -> None:
    task = run.task(lambda s: once_delivered(s) and s.entries[-1]["op"] == "ack")
    enqueue = task.answered("enqueue")[0]
    call, lease = task.leases[0]
    ack = task.answered("ack")[0]
    end_ns = ack.end["time_ns"]
    last = task.entries[-1]
    shift = 1_000_000
    span_ms = last["at_ms"] - task.entries[0]["at_ms"] + 5
    for entry in [dict(each) for each in task.entries]:
        entry |= {
            "incarnation": entry["incarnation"] + shift,
            "revision": entry["revision"] + shift,
            "at_ms": entry["at_ms"] + span_ms,
            "due_ms": entry["due_ms"] + span_ms,
            "epoch": max(each.get("epoch", 0) for each in run.journal),
        }
        run.journal.append(entry)
    counts = run.final["topics"][task.topic]["shards"][last.get("shard", 0)]
    counts["enqueued"] += 1
    counts["succeeded"] += 1
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    run.insert(end_ns + MS, "enqueue", enqueue.request, lost, type="info")
    second = lease | {
        "token": OTHER, "incarnation": lease["incarnation"] + shift,
        "revision": lease["revision"] + shift, "due_ms": lease["due_ms"] + span_ms,
        "store_ms": lease["store_ms"] + span_ms, "expire_ms": lease["expire_ms"] + span_ms,
    }  # fmt: skip
    at_ns = call.end["time_ns"] + span_ms * MS + 3 * MS
    request = call.request | {"request_id": "second"}
    run.insert(at_ns, "retrieve", request, {"leases": [second]})
    reply = ack.reply | {"revision": ack.reply["revision"] + shift}
    run.insert(at_ns + 3 * MS, "ack", ack.request | {"token": OTHER}, reply)
