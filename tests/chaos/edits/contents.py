"""Edits of what was delivered: its bytes, its promotion, and when it should have been."""

from __future__ import annotations

from tests.chaos.edits.base import Edited, Json, TaskTrace
from tests.chaos.edits.clients import MS, OTHER, again, delayed, has, once_delivered
from tests.chaos.edits.registry import edit

TAKEOVER_NS = 6_500 * MS
"""The end of a fault may cost so long, since a scheduler may have been replaced."""


def unseen(task: TaskTrace) -> object:
    """Delivered once, and never looked at."""
    return once_delivered(task) and not task.answered("get")


@edit("G1", "The worker got nothing of the bytes that were enqueued.")
def no_bytes(run: Edited) -> None:
    run.task(once_delivered).leases[0][1]["payload"] = ""


@edit("G1", "The last byte is missing.")
def bytes_that_are_cut(run: Edited) -> None:
    lease = run.task(once_delivered).leases[0][1]
    lease["payload"] = lease["payload"][:-1]


@edit("G1", "A look shows a task that no client enqueued.")
def a_phantom_that_is_seen(run: Edited) -> None:
    enqueue = run.task(delayed).answered("enqueue")[0]
    reply = {
        "revision": enqueue.reply["revision"], "state": "scheduled", "payload": "phantom",
        "incarnation": enqueue.reply["incarnation"], "due_ms": enqueue.reply["due_ms"],
    }  # fmt: skip
    request = {"topic": enqueue.request["topic"], "id": "phantom"}
    run.insert(enqueue.end["time_ns"] + MS, "get", request, reply)


@edit("G1", "The store holds the whole life of a task that no client enqueued.")
def a_phantom_of_the_store(run: Edited) -> None:
    task = run.task(once_delivered)
    at = run.journal.index(task.entries[-1]) + 1
    run.journal[at:at] = [entry | {"id": "phantom"} for entry in task.entries]


@edit("G1", "The bytes came before the client that sent them had sent them.")
def bytes_from_the_future(run: Edited) -> None:
    task = run.task(once_delivered)
    call, lease = task.leases[0]
    lease["payload"] = "later"
    request = task.answered("enqueue")[0].request | {"payload": "later"}
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    run.insert(call.end["time_ns"] + 50 * MS, "enqueue", request, lost, type="info")


@edit("G3", "One promotion led to two leases, and no release lies between them.")
def a_promotion_that_is_delivered_twice(run: Edited) -> None:
    call, lease = run.task(unseen).leases[0]
    again(run, call, lease, token=OTHER, attempt=2, revision=lease["revision"] + 1)


@edit("G3", "A task was promoted that a worker held.")
def promoted_while_leased(run: Edited) -> None:
    task = run.task(once_delivered)
    lease = task.made("lease")[0]
    promotion = task.made("promote")[0] | {
        "promotion": 2, "revision": lease["revision"], "at_ms": lease["at_ms"], "from": "leased",
    }  # fmt: skip
    run.journal.insert(run.journal.index(lease) + 1, promotion)


@edit("G6", "A task was cancelled two seconds after it was due, and had not been promoted.")
def cancelled_while_overdue(run: Edited) -> None:
    last_ns = max(e["time_ns"] for e in run.events if e["op"] == "fault")
    task = run.task(
        lambda s: (
            [entry["op"] for entry in s.entries] == ["enqueue", "cancel"]
            and {call.op for call in s.calls if call.ok} == {"enqueue", "cancel"}
            and s.answered("enqueue")[0].begin["time_ns"] > last_ns + TAKEOVER_NS
        )
    )
    made, cancel = task.entries
    enqueue = task.answered("enqueue")[0]
    _due(task, cancel["at_ms"] - 2_000, enqueue.request, made)


def _due(task: TaskTrace, due_ms: int, request: Json, made: Json) -> None:
    """The task was asked for, and kept, with another due time."""
    request["delay_ms"] = max(0, due_ms - made["at_ms"])
    # The rest of the way back: the enqueue itself was earlier.
    made["at_ms"] = due_ms - request["delay_ms"]
    for entry in task.entries:
        entry["due_ms"] = due_ms
    for op in ("enqueue", "cancel"):
        for call in task.answered(op):
            if "due_ms" in call.reply:
                call.reply["due_ms"] = due_ms
    task.answered("enqueue")[0].reply["store_ms"] = made["at_ms"]


@edit("G9", "An acked task is held as ready at the end.")
def held_after_its_ack(run: Edited) -> None:
    task = run.task(unseen)
    held = run.final["topics"][task.topic].setdefault("held", {})
    held.setdefault("ready", {})[task.id] = task.entries[0]["incarnation"]


@edit("G9", "A Retrieve that is repeated after the ack reports the lease as if it still ran.")
def a_retrieve_that_is_repeated_after_the_ack(run: Edited) -> None:
    task = run.task(once_delivered)
    call, _ = task.leases[0]
    run.insert(
        task.answered("ack")[0].end["time_ns"] + 5 * MS, "retrieve", call.request, call.reply
    )


@edit("G3", "The store promoted again what it had finished.")
def the_store_promotes_what_was_acked(run: Edited) -> None:
    task = run.task(once_delivered)
    ack = task.made("ack")[0]
    promotion = ack | {
        "op": "promote", "from": "succeeded", "to": "ready", "promotion": ack["promotion"] + 1,
        "revision": ack["revision"] + 1, "owner": task.made("promote")[0]["owner"],
    }  # fmt: skip
    run.journal.insert(run.journal.index(ack) + 1, promotion)


@edit("G5", "A reschedule was acknowledged, and the task came at its old due time.")
def delivered_at_its_old_due_time(run: Edited) -> None:
    task = run.task(lambda s: has("reschedule")(s) and s.leases)
    call = task.answered("reschedule")[0]
    call.request["delay_ms"] = 60_000
    call.reply["due_ms"] = call.reply["store_ms"] + 60_000


@edit("G1", "A worker got a text of the same length that differs in one letter.")
def bytes_with_another_letter(run: Edited) -> None:
    lease = run.task(once_delivered).leases[0][1]
    lease["payload"] = "x" + lease["payload"][1:]


@edit("G9", "A look after the ack shows the task as leased by its worker.")
def seen_leased_after_its_ack(run: Edited) -> None:
    task = run.task(unseen)
    ack = task.answered("ack")[0]
    reply = {
        "state": "leased",
        **{
            key: task.made("lease")[0][key]
            for key in ("revision", "incarnation", "promotion", "attempt", "run", "due_ms")
        },
    }
    request = {"topic": task.topic, "id": task.id}
    run.insert(ack.end["time_ns"] + 5 * MS, "get", request, reply)
