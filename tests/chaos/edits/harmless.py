"""Changes that break no promise: what was concurrent, unknown, or said twice."""

from __future__ import annotations

from functools import partial

from tests.chaos.edits.base import Edited
from tests.chaos.edits.clients import MS, delayed, has, once_delivered
from tests.chaos.edits.registry import legal


@legal("The base itself.")
def nothing(_run: Edited) -> None:
    pass


@legal("A Retrieve that is repeated under its request_id reports its leases again.")
def a_retrieve_that_is_repeated(run: Edited) -> None:
    call, _ = run.task(once_delivered).leases[0]
    run.insert(call.end["time_ns"] + MS, "retrieve", call.request, call.reply)


@legal("An ack that is repeated gets the same answer.")
def an_ack_that_is_repeated(run: Edited) -> None:
    ack = run.task(once_delivered).answered("ack")[0]
    run.insert(ack.end["time_ns"] + MS, "ack", ack.request, ack.reply)


@legal("An enqueue that is repeated finds the task that it made.")
def an_enqueue_that_is_repeated(run: Edited) -> None:
    task = run.task(delayed)
    enqueue = task.answered("enqueue")[0]
    reply = enqueue.reply | {"created": False}
    run.insert(enqueue.end["time_ns"] + MS, "enqueue", enqueue.request, reply)


@legal("A cancel that is repeated says that the task was cancelled before.")
def a_cancel_that_is_repeated(run: Edited) -> None:
    cancel = run.task(lambda s: s.answered("cancel") and not s.leases).answered("cancel")[0]
    run.insert(
        cancel.end["time_ns"] + MS, "cancel", cancel.request, cancel.reply | {"already": True}
    )


def _unknown(run: Edited, *, op: str) -> None:
    """An acknowledged operation whose reply is lost; the journal shows what became of it."""
    call = run.task(has(op)).answered(op)[-1]
    call.end["type"] = "info"
    call.end["reply"] = {"error": "DEADLINE_EXCEEDED", "message": ""}


for op in (
    "enqueue", "ack", "nack", "release", "snooze", "extend", "cancel", "reschedule", "run_again",
):  # fmt: skip
    legal("Its reply was lost, and it took effect.", f"the_reply_to_{op}_is_lost")(
        partial(_unknown, op=op)
    )


def _without(run: Edited, *, op: str) -> None:
    request = {"topic": "mixed1", "id": "never"}
    if op == "enqueue":
        request |= {"payload": "never"}
    if op in {"ack", "nack", "release", "extend"}:
        request |= {"token": "0" * 32}
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    run.insert(run.end_ns // 2, op, request, lost, type="info")


for op in ("enqueue", "ack", "nack", "release", "extend", "cancel"):
    legal("Its outcome is unknown, and it had no effect.", f"a_{op}_that_never_arrived")(
        partial(_without, op=op)
    )


TOUCHED = ("enqueue", "ack", "cancel", "reschedule", "nack", "get", "extend")


def _moved(run: Edited, *, op: str, event: str, by_ns: int) -> None:
    """One end of an operation moves outwards, unless its process did something meanwhile."""
    call = run.task(has(op)).answered(op)[0]
    moved = call.begin if event == "begin" else call.end
    to_ns = moved["time_ns"] + by_ns
    first_ns, last_ns = sorted((moved["time_ns"], to_ns))
    between = [
        each for each in run.events
        if each is not moved and each["process"] == moved["process"]
        and first_ns <= each["time_ns"] <= last_ns
    ]  # fmt: skip
    if not between:
        moved["time_ns"] = to_ns
        run.events.sort(key=lambda each: each["time_ns"])


for op in TOUCHED:
    legal("A reply arrives two milliseconds later.", f"a_late_reply_to_{op}")(
        partial(_moved, op=op, event="end", by_ns=2 * MS)
    )
    legal("A request began one millisecond earlier.", f"an_early_request_of_{op}")(
        partial(_moved, op=op, event="begin", by_ns=-MS)
    )


@legal("Where there was nothing to be found, 'not found' is true.")
def a_look_for_what_there_never_was(run: Edited) -> None:
    reply = {"error": "TASK_NOT_FOUND", "message": ""}
    run.insert(run.end_ns // 2, "get", {"topic": "mixed1", "id": "never"}, reply, type="fail")


@legal("A token that was superseded is refused.")
def a_verdict_that_is_refused(run: Edited) -> None:
    task = run.task(once_delivered)
    ack = task.answered("ack")[0]
    reply = {"error": "LEASE_LOST", "message": ""}
    run.insert(ack.end["time_ns"] + MS, "nack", ack.request, reply, type="fail")


@legal("Counts that stay the same, or rise, are as they should be.")
def counts_that_rise(run: Edited) -> None:
    for after_ms, enqueued in ((100, 50), (200, 50), (300, 51)):
        counts = {"enqueued": enqueued, "scheduled": enqueued}
        run.insert(
            run.end_ns // 2 + after_ms * MS, "stats", {"topic": "mixed1"},
            {"shards": [counts, counts]},
        )  # fmt: skip


@legal("A Retrieve that finds nothing changes nothing.")
def an_empty_retrieve(run: Edited) -> None:
    request = {"topics": ["mixed1"], "request_id": "empty", "max_tasks": 1}
    run.insert(run.end_ns + MS, "retrieve", request, {"leases": []})


@legal("A task that was not cancelled may be refused a cancel once it has finished.")
def a_cancel_after_the_end(run: Edited) -> None:
    ack = run.task(once_delivered).answered("ack")[0]
    request = {"topic": ack.request["topic"], "id": ack.request["id"]}
    reply = {"error": "TASK_FINISHED", "message": ""}
    run.insert(ack.end["time_ns"] + MS, "cancel", request, reply, type="fail")


@legal("More replicas than a majority may have confirmed a write.")
def a_receipt_of_all_replicas(run: Edited) -> None:
    run.task(once_delivered).answered("ack")[0].reply["replicas_acked"] = 2


@legal("A history without receipts can be judged by the rest.")
def no_receipts(run: Edited) -> None:
    for event in run.events:
        reply = event.get("reply", {})
        for said in [reply, *reply.get("leases", [])]:
            if event["op"] != "run":
                said.pop("durability", None)
                said.pop("replicas_acked", None)


@legal("A reply may have waited for more than was asked for.")
def a_stronger_receipt(run: Edited) -> None:
    run.task(once_delivered).answered("ack")[0].reply.update(durability="all", replicas_acked=2)
