"""Edits of the replies that clients got; the journal stays as it was."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.chaos.edits.base import Call, Edited, Json, TaskTrace
from tests.chaos.edits.registry import edit

MS = 1_000_000
OTHER = "f" * 32
"""A token, or a lineage, that there is not."""


def has(op: str) -> Any:
    return lambda task: task.answered(op)


def once_delivered(task: TaskTrace) -> object:
    """Enqueued once, delivered once and acked."""
    return (
        len(task.leases) == 1
        and len(task.answered("enqueue")) == 1
        and len(task.answered("ack")) == 1
        and len(task.made("enqueue")) == 1
        and not task.answered("extend")
    )


def delayed(task: TaskTrace) -> object:
    return once_delivered(task) and task.answered("enqueue")[0].request.get("delay_ms", 0) > 300


def again(run: Edited, call: Call, lease: Json, *, after_ms: int = 1, **changed: Any) -> Call:
    """Another Retrieve, which reports a lease so long after the first one did."""
    request = call.request | {"request_id": f"again-{lease['token']}"}
    at_ns = call.end["time_ns"] + after_ms * MS
    return run.insert(at_ns, "retrieve", request, {"leases": [lease | changed]}, took_ns=1_000)


# Leases and tokens -----------------------------------------------------------------------------


@edit("G7", "A lease is one worker's: another request was given the same one.")
def one_lease_for_two_requests(run: Edited) -> None:
    call, lease = run.task(once_delivered).leases[0]
    again(run, call, lease)


@edit("G7", "The token of one task's lease cannot be that of another task's.")
def one_token_for_two_tasks(run: Edited) -> None:
    first, second = [s for s in run.tasks.values() if once_delivered(s)][:2]
    old, new = second.leases[0][1]["token"], first.leases[0][1]["token"]
    second.leases[0][1]["token"] = new
    for call in second.calls:
        if call.request.get("token") == old:
            call.request["token"] = new


@edit("G8", "An ack was accepted under a token that no reply had granted.")
def a_token_that_was_never_granted(run: Edited) -> None:
    run.task(once_delivered).answered("ack")[0].request["token"] = OTHER


@edit("G7", "A second worker holds the task while the first one's lease runs.")
def a_second_holder(run: Edited) -> None:
    call, lease = run.task(once_delivered).leases[0]
    revision = lease["revision"] + 1
    again(
        run, call, lease, token=OTHER, attempt=2, promotion=2, revision=revision, after_ms=0
    )  # fmt: skip


@edit("G7", "A Retrieve asked for fewer tasks than it got.")
def more_tasks_than_were_asked_for(run: Edited) -> None:
    call = next(c for c in run.retrieves() if c.ok and len(c.reply.get("leases", [])) == 1)
    call.request["max_tasks"] = 0


@edit("G7", "A Retrieve was given a task of a topic that it did not name.")
def a_task_of_another_topic(run: Edited) -> None:
    call, lease = run.task(once_delivered).leases[0]
    call.request["topics"] = [topic for topic in ("mixed1", "mixed2") if topic != lease["topic"]]


def _lease_length(run: Edited, *, by_ms: int) -> None:
    run.task(once_delivered).leases[0][1]["expire_ms"] += by_ms


for name, by_ms in (("shorter", -1), ("longer", 1_000)):
    edit("G7", "A lease runs for as long as was asked for.", f"a_lease_is_{name}")(
        partial(_lease_length, by_ms=by_ms)
    )


def _lease_field(run: Edited, *, field: str, by: int) -> None:
    run.task(once_delivered).leases[0][1][field] = (
        run.task(once_delivered).leases[0][1].get(field, 1) + by
    )


for field, promise in (
    ("attempt", "G7"), ("promotion", "G3"), ("run", "G7"), ("incarnation", "G3"),
    ("revision", "G7"),
):  # fmt: skip
    edit(
        promise,
        f"The lease names another {field} than the store granted.",
        f"a_lease_of_another_{field}",
    )(partial(_lease_field, field=field, by=1))


@edit("G1", "The worker got other bytes than were enqueued.")
def other_bytes(run: Edited) -> None:
    run.task(once_delivered).leases[0][1]["payload"] = "another"


@edit("G1", "The worker got a task that no client enqueued.")
def a_phantom(run: Edited) -> None:
    call, lease = run.task(once_delivered).leases[0]
    call.reply["leases"].append(lease | {"id": "phantom", "token": OTHER})


@edit("G1", "The bytes of another task were delivered under this id.")
def bytes_of_another_task(run: Edited) -> None:
    first, second = [s for s in run.tasks.values() if once_delivered(s)][:2]
    first.leases[0][1]["payload"] = second.leases[0][1]["payload"]


@edit("G1", "A look at the task shows other bytes than were enqueued.")
def seen_with_other_bytes(run: Edited) -> None:
    run.task(has("get")).answered("get")[0].reply["payload"] = "another"


# Due times -------------------------------------------------------------------------------------


def _due(run: Edited, *, by_ms: int) -> None:
    run.task(delayed).answered("enqueue")[0].reply["due_ms"] += by_ms


for name, promise, by_ms in (("later", "G5", 3_000), ("earlier", "G6", -40)):
    edit(
        promise,
        f"The reply names a due time {abs(by_ms)} ms {name} than the store keeps.",
        f"a_reply_with_a_due_time_{name}",
    )(partial(_due, by_ms=by_ms))


def _asked(run: Edited, *, by_ms: int) -> None:
    run.task(delayed).answered("enqueue")[0].request["delay_ms"] += by_ms


for name, promise, by_ms in (("more", "G5", 200), ("less", "G6", -200)):
    edit(
        promise,
        f"The client asked for {abs(by_ms)} ms {name} than the store made of it.",
        f"a_delay_that_was_{name}",
    )(partial(_asked, by_ms=by_ms))


def _rescheduled(run: Edited, *, by_ms: int) -> None:
    task = run.task(has("reschedule"))
    task.answered("reschedule")[0].request["delay_ms"] += by_ms


for name, promise, by_ms in (("more", "G5", 200), ("less", "G6", -1)):
    edit(
        promise,
        f"A reschedule asked for {abs(by_ms)} ms {name} than the store made of it.",
        f"a_reschedule_by_{name}",
    )(partial(_rescheduled, by_ms=by_ms))


@edit("G5", "A snooze asked for more than the store made of it.")
def a_snooze_that_is_short(run: Edited) -> None:
    run.task(has("snooze")).answered("snooze")[0].request["delay_ms"] += 500


@edit("G5", "A next run was asked for later than the store made it due.")
def a_next_run_too_early(run: Edited) -> None:
    call = run.task(has("run_again")).answered("run_again")[0]
    call.request["delay_ms"] = call.request.get("delay_ms", 0) + 500


@edit("G5", "The task was delivered before the due time that its lease names.")
def delivered_before_its_due_time(run: Edited) -> None:
    lease = run.task(delayed).leases[0][1]
    lease["due_ms"] = lease["store_ms"] + 5_000


# Replies that name what did not happen ----------------------------------------------------------


UNDONE = {
    "enqueue": "G2", "cancel": "G4", "reschedule": "G5", "ack": "G9", "nack": "G8",
    "release": "G8", "snooze": "G8", "extend": "G8", "run_again": "G13", "get": "G2",
}  # fmt: skip


def _revision(run: Edited, *, op: str) -> None:
    task = run.task(has(op))
    task.answered(op)[-1].reply["revision"] += 1_000_000


for op, promise in UNDONE.items():
    edit(
        promise,
        f"The reply to {op} names a revision that the store never had.",
        f"a_revision_of_{op}_that_there_is_not",
    )(partial(_revision, op=op))


def _field(run: Edited, *, op: str, field: str, value: Any) -> None:
    # A dead task is not due.
    calls = [
        call
        for task in run.tasks.values()
        for call in task.answered(op)
        if call.reply.get(field) != value and call.reply.get("state") != "dead"
    ]
    calls[0].reply[field] = value


for promise, op, field, value in (
    ("G9", "get", "state", "dead"),  # it was acked
    ("G2", "get", "attempt", 77),
    ("G2", "get", "promotion", 77),
    ("G2", "get", "incarnation", 77),
    ("G2", "get", "run", 77),
    ("G8", "nack", "state", "dead"),
    ("G6", "nack", "due_ms", 1),
    ("G2", "enqueue", "incarnation", 1),
):
    edit(
        promise,
        f"The reply to {op} names another {field} than the task had.",
        f"another_{field}_in_a_reply_to_{op}",
    )(partial(_field, op=op, field=field, value=value))


def _not_done(run: Edited, *, op: str) -> None:
    """The same verdict for a task that had none of its kind."""
    task = run.task(lambda s: once_delivered(s) and not s.answered(op))
    model = run.task(has(op)).answered(op)[0]
    lease = task.leases[0][1]
    request = model.request | {"topic": task.topic, "id": task.id}
    if "token" in request:
        request["token"] = lease["token"]
    before_ns = task.leases[0][0].end["time_ns"]
    reply = model.reply | {"revision": lease["revision"], "lineage": lease["lineage"]}
    run.insert(before_ns, op, request, reply, took_ns=1_000)


for op, promise in (
    # The ack that follows has a token that most of these had superseded.
    ("nack", "G8"), ("release", "G8"), ("snooze", "G8"), ("extend", "G8"), ("cancel", "G4"),
    ("reschedule", "G8"),
):  # fmt: skip
    edit(
        promise,
        f"A reply says that {op} took effect; the store knows nothing of it.",
        f"a_{op}_that_did_not_happen",
    )(partial(_not_done, op=op))


def _receipt(run: Edited, **receipt: Any) -> None:
    run.task(once_delivered).answered("ack")[0].reply.update(receipt)


for name, receipt in (
    ("waited_for_no_replica", {"replicas_acked": 0}),
    ("says_fast", {"durability": "fast"}),
    ("says_all_and_names_one", {"durability": "all", "replicas_acked": 1}),
):
    edit(
        "G2",
        "The reply left before what the topic's durability asks for.",
        f"a_receipt_that_{name}",
    )(partial(_receipt, **receipt))


@edit("G2", "A lease was granted before a majority had it.")
def a_lease_with_a_weak_receipt(run: Edited) -> None:
    run.task(once_delivered).leases[0][1]["replicas_acked"] = 0


# Ends ------------------------------------------------------------------------------------------


@edit("G4", "What was cancelled was delivered afterwards.")
def delivered_after_its_cancel(run: Edited) -> None:
    task = run.task(lambda s: s.answered("cancel") and not s.leases)
    cancel = task.answered("cancel")[0]
    call, lease = run.task(once_delivered).leases[0]
    again(
        run, call, lease, token=OTHER, id=task.id, topic=task.topic,
        incarnation=cancel.reply["incarnation"], revision=cancel.reply["revision"] + 1,
        payload=task.answered("enqueue")[0].request["payload"],
        after_ms=(cancel.end["time_ns"] - call.end["time_ns"]) // MS + 5,
    )  # fmt: skip


@edit("G4", "A cancel said 'not found' of a task that was there.")
def a_cancel_that_did_not_find_its_task(run: Edited) -> None:
    call = _refused(run, "TASK_FINISHED")
    call.reply["error"] = "TASK_NOT_FOUND"


@edit("G4", "A cancel said 'leased' of a task that had ended.")
def a_cancel_of_a_finished_task_that_says_leased(run: Edited) -> None:
    call = _refused(run, "TASK_FINISHED")
    call.reply["error"] = "TASK_LEASED"


def _refused(run: Edited, error: str) -> Call:
    task = run.task(
        lambda s: any(
            c.op == "cancel"
            and c.outcome == "fail"
            and c.reply["error"] == error
            and any(a.end["time_ns"] < c.begin["time_ns"] for a in s.answered("ack"))
            for c in s.calls
        )
    )
    return next(c for c in task.calls if c.op == "cancel" and c.outcome == "fail")


@edit("G4", "A cancel said 'finished' of a task that was delivered and acked later.")
def a_cancel_that_came_too_late_too_early(run: Edited) -> None:
    task = run.task(delayed)
    enqueue = task.answered("enqueue")[0]
    request = {"topic": task.topic, "id": task.id}
    reply = {"error": "TASK_FINISHED", "message": ""}
    run.insert(enqueue.end["time_ns"], "cancel", request, reply, type="fail")


@edit("G9", "What was acked was delivered afterwards.")
def delivered_after_its_ack(run: Edited) -> None:
    task = run.task(once_delivered)
    call, lease = task.leases[0]
    ack = task.answered("ack")[0]
    after_ms = (ack.end["time_ns"] - call.end["time_ns"]) // MS + 5
    again(
        run, call, lease, token=OTHER, revision=ack.reply["revision"] + 1, attempt=2,
        promotion=2, after_ms=after_ms, store_ms=lease["store_ms"] + after_ms,
        expire_ms=lease["expire_ms"] + after_ms,
    )  # fmt: skip


@edit("G9", "An acked task was seen as scheduled afterwards.")
def seen_after_its_ack(run: Edited) -> None:
    task = run.task(lambda s: once_delivered(s) and not s.answered("get"))
    ack = task.answered("ack")[0]
    entry = task.made("enqueue")[0]
    reply = {
        "revision": ack.reply["revision"], "state": "scheduled",
        "incarnation": entry["incarnation"], "due_ms": entry["due_ms"],
    }  # fmt: skip
    request = {"topic": task.topic, "id": task.id}
    run.insert(ack.end["time_ns"] + 5 * MS, "get", request, reply)


@edit("G2", "A task that was enqueued was not found.")
def not_found_after_its_enqueue(run: Edited) -> None:
    task = run.task(delayed)
    enqueue = task.answered("enqueue")[0]
    request = {"topic": task.topic, "id": task.id}
    reply = {"error": "TASK_NOT_FOUND", "message": ""}
    run.insert(enqueue.end["time_ns"] + MS, "get", request, reply, type="fail")


@edit("G2", "An enqueue was acknowledged of which the store knows nothing.")
def an_enqueue_that_vanished(run: Edited) -> None:
    model = run.task(once_delivered).answered("enqueue")[0]
    request = model.request | {"id": "vanished", "payload": "vanished"}
    run.insert(model.end["time_ns"] + MS, "enqueue", request, model.reply | {"revision": 999_999})


# Repeats ---------------------------------------------------------------------------------------


@edit("G13", "The repeat of an enqueue made a second task.")
def a_repeat_that_makes_a_second_task(run: Edited) -> None:
    enqueue = run.task(once_delivered).answered("enqueue")[0]
    revision = enqueue.reply["revision"] + 1
    reply = enqueue.reply | {"revision": revision, "incarnation": revision, "created": True}
    run.insert(enqueue.end["time_ns"] + MS, "enqueue", enqueue.request, reply)


@edit("G13", "The repeat of an ack made another transition.")
def a_repeated_ack_with_another_revision(run: Edited) -> None:
    ack = run.task(once_delivered).answered("ack")[0]
    reply = ack.reply | {"revision": ack.reply["revision"] + 1}
    run.insert(ack.end["time_ns"] + MS, "ack", ack.request, reply)


@edit("G13", "The repeat of a Retrieve was granted another lease.")
def a_repeated_retrieve_with_another_lease(run: Edited) -> None:
    call, lease = run.task(once_delivered).leases[0]
    reply = {"leases": [lease | {"token": OTHER}]}
    run.insert(call.end["time_ns"] + MS, "retrieve", call.request, reply)


@edit("G13", "Two cancels say that it was they who ended the task.")
def a_second_first_cancel(run: Edited) -> None:
    task = run.task(lambda s: s.answered("cancel") and not s.leases)
    cancel = task.answered("cancel")[0]
    reply = cancel.reply | {"revision": cancel.reply["revision"]}
    reply.pop("already", None)
    run.insert(cancel.end["time_ns"] + MS, "cancel", cancel.request, reply)


@edit("G8", "The same token ended its lease twice, in different ways.")
def two_verdicts_of_one_token(run: Edited) -> None:
    task = run.task(once_delivered)
    ack = task.answered("ack")[0]
    reply = {"revision": ack.reply["revision"], "state": "scheduled"}
    run.insert(ack.end["time_ns"] + MS, "nack", ack.request, reply)
