"""Edits of when a task was ready and who waited for it: journal, replies and requests agree."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.chaos.edits.base import Call, Edited, TaskTrace
from tests.chaos.edits.clients import MS, once_delivered
from tests.chaos.edits.registry import edit, legal

READY_MS = 2_000
"""How long the task of an edit is ready."""
RECOVERED_MS = 6_000
"""A little more than the base's recovery_ms."""
STEM = "5" * 16


def _long_ready(run: Edited, ready_ms: int = READY_MS) -> TaskTrace:
    """A task, after all trouble, that was due and promoted so much earlier than in the base."""
    healed_ns = max(e["time_ns"] for e in run.events if e["op"] == "fault")
    task = run.task(
        lambda s: (
            once_delivered(s)
            and (s.answered("enqueue")[0].request.get("delay_ms") or 0) > READY_MS + 500
            and "/" not in s.leases[0][0].request["request_id"]
            and s.leases[0][0].end["time_ns"] > healed_ns + (RECOVERED_MS + READY_MS) * MS
        )
    )
    enqueue = task.answered("enqueue")[0]
    enqueue.request["delay_ms"] -= ready_ms
    enqueue.reply["due_ms"] -= ready_ms
    task.made("promote")[0]["at_ms"] -= ready_ms
    for entry in task.entries:
        entry["due_ms"] -= ready_ms
    for _, lease in task.leases:
        lease["due_ms"] -= ready_ms
    return task


def _times(run: Edited, task: TaskTrace) -> tuple[int, int]:
    """From when to when it is ready, in the controller's time."""
    enqueue = task.answered("enqueue")[0]
    made_ns = (enqueue.begin["time_ns"] + enqueue.end["time_ns"]) // 2
    promote, lease = task.made("promote")[0], task.made("lease")[0]
    enqueued_ms = task.made("enqueue")[0]["at_ms"]
    begin_ns = made_ns + (promote["at_ms"] - enqueued_ms) * MS
    return begin_ns, begin_ns + (lease["at_ms"] - promote["at_ms"]) * MS


def _without_waiters(run: Edited, task: TaskTrace) -> tuple[int, int]:
    """As if every worker had asked without waiting while the task was ready."""
    begin_ns, end_ns = _times(run, task)
    for call in run.retrieves():
        over_ns = call.end.get("time_ns", run.end_ns)
        if call.begin["time_ns"] < end_ns and over_ns > begin_ns:
            call.request["wait_ms"] = 0
    return begin_ns, end_ns


def _poll(run: Edited, task: TaskTrace, at_ns: int, wait_ms: int, **changed: Any) -> Call:
    """A Retrieve that waits so long and comes back empty."""
    how = {"took_ns": wait_ms * MS, **changed}
    reply = how.pop("reply", {"leases": []})
    request = {
        "topics": how.pop("topics", [task.topic]), "request_id": f"poll-{at_ns}", "max_tasks": 4,
        "wait_ms": wait_ms,
    }  # fmt: skip
    return run.insert(at_ns, "retrieve", request, reply, **how)


def _credit(run: Edited, at_ns: int, tasks: int) -> None:
    """A stream begins to ask for tasks, or ends to."""
    run.events.append(
        {
            "index": 2_000_000 + len(run.events), "time_ns": at_ns, "process": STEM,
            "type": "info", "op": "credit", "reply": {"tasks": tasks},
        }
    )  # fmt: skip
    run.events.sort(key=lambda event: event["time_ns"])


def _stream(run: Edited, task: TaskTrace, begin_ns: int, end_ns: int) -> None:
    """A stream with credit, whose first reply does not come."""
    _credit(run, begin_ns, 4)
    _credit(run, end_ns, 0)
    request = {"topics": [task.topic], "request_id": f"{STEM}/1", "max_tasks": 4, "wait_ms": 60_000}
    run.insert(
        begin_ns, "retrieve", request, {"error": "CUT_OFF", "message": ""}, type="fail",
        took_ns=end_ns - begin_ns,
    )  # fmt: skip


def _fault(run: Edited, begin_ns: int, end_ns: int, kind: str, target: str) -> None:
    number = f"{kind}-{begin_ns}"
    for at_ns, phase in ((begin_ns, "inject"), (end_ns, "heal")):
        run.events.append(
            {
                "index": 3_000_000 + len(run.events), "time_ns": at_ns, "process": "nemesis",
                "type": "info", "op": "fault",
                "reply": {"kind": kind, "target": target, "phase": phase, "number": number},
            }
        )  # fmt: skip
    run.events.sort(key=lambda event: event["time_ns"])


@edit("G14", "A task was ready for two seconds, and all workers waited for one.")
def ready_and_not_delivered(run: Edited) -> None:
    _long_ready(run)


@edit("G14", "One worker waited for most of the time in which the task was ready.")
def one_worker_that_gets_nothing(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, _ = _without_waiters(run, task)
    _poll(run, task, begin_ns + 50 * MS, 1_500)


@edit("G14", "Four Retrieves in a row missed the task: each for less than the bound, all for more.")
def several_short_waits_that_get_nothing(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, _ = _without_waiters(run, task)
    for number in range(4):
        _poll(run, task, begin_ns + (50 + 300 * number) * MS, 150)


@edit("G14", "A Retrieve got other tasks, though fewer than it asked for, after a second.")
def a_wait_that_got_other_tasks(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _without_waiters(run, task)
    call = task.leases[0][0]
    call.begin["time_ns"] = begin_ns + 50 * MS
    call.request["wait_ms"] = (end_ns - begin_ns) // MS
    call.request["max_tasks"] = 10


@edit("G14", "A Retrieve that waited for a second was full only then: it had waited all the same.")
def a_full_reply_that_came_late(run: Edited) -> None:
    a_wait_that_got_other_tasks(run)
    task = _last_changed(run)
    call = task.leases[0][0]
    call.request["max_tasks"] = len(call.reply["leases"])


def _last_changed(run: Edited) -> TaskTrace:
    """The task whose promotion was moved."""
    return run.task(
        lambda s: (
            once_delivered(s)
            and s.made("lease")
            and s.made("promote")
            and s.made("lease")[0]["at_ms"] - s.made("promote")[0]["at_ms"] >= READY_MS
            and s.made("promote")[0]["at_ms"] - s.made("promote")[0]["due_ms"] < READY_MS
        )
    )


@edit("G14", "A stream had credit for two seconds, and the task was not sent on it.")
def a_stream_that_gets_nothing(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _without_waiters(run, task)
    _stream(run, task, begin_ns, end_ns)


@edit("G14", "A Retrieve was not answered at all, without a fault, while the task was ready.")
def a_wait_without_an_answer(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, _ = _without_waiters(run, task)
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    _poll(run, task, begin_ns + 50 * MS, 500, type="info", reply=lost, took_ns=1_500 * MS)


@edit("G14", "A stopped scheduler excuses nothing: what is ready needs none.")
def a_scheduler_that_is_stopped_meanwhile(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _times(run, task)
    _fault(run, begin_ns - 1_000 * MS, end_ns, "pause", "scheduler-leader")


@edit("G14", "An API process that is stopped excuses nothing for a worker at another one.")
def a_server_that_is_stopped_meanwhile(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _times(run, task)
    _fault(run, begin_ns, end_ns, "pause", "api")


@edit("G14", "Trouble of another topic's shards excuses nothing.")
def trouble_of_another_topic(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _times(run, task)
    other = "mixed1" if task.topic == "mixed2" else "mixed2"
    _hinder(run, other, begin_ns, end_ns)


@edit("G14", "A task that was handed back is ready, and has to be delivered again.")
def handed_back_and_not_delivered(run: Edited) -> None:
    """The release is two seconds before the next lease."""
    task = _long_ready(run)
    lease, promote = task.made("lease")[0], task.made("promote")[0]
    at = run.journal.index(lease)
    other = {
        "at_ms": promote["at_ms"] + 1, "lineage": "a" * 16,
    }  # fmt: skip
    run.journal[at:at] = [
        lease | other,
        lease | other | {"op": "release", "from": "leased", "to": "ready", "attempt": 0},
    ]


def _hinder(run: Edited, topic: str, begin_ns: int, end_ns: int) -> None:
    """No write of the topic is answered in between."""
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    for call in [c for c in _writes(run, topic) if begin_ns < c.end["time_ns"] < end_ns]:
        call.end |= {"type": "info", "reply": lost}
    request = {"topic": topic, "id": "never", "payload": "never"}
    run.insert(begin_ns, "enqueue", request, lost, type="info", took_ns=end_ns - begin_ns)


def _writes(run: Edited, topic: str) -> list[Call]:
    return [
        call
        for task in run.tasks.values()
        if task.topic == topic
        for call in task.calls
        if call.ok and call.op != "get"
    ]


# Legal ----------------------------------------------------------------------------------------


@legal("No worker waits for the task while it is ready.")
def ready_while_no_worker_waits(run: Edited) -> None:
    _without_waiters(run, _long_ready(run))


@legal("A worker waits for tasks of another topic.")
def a_wait_for_another_topic(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, _ = _without_waiters(run, task)
    other = "mixed1" if task.topic == "mixed2" else "mixed2"
    # It asks for nothing that is ready there either.
    _poll(run, task, begin_ns + 50 * MS, 200, topics=[other])


@legal("A Retrieve that is refused tells its worker to ask again: it does not wait.")
def a_wait_that_is_refused(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, _ = _without_waiters(run, task)
    refused = {"error": "UNAVAILABLE", "message": ""}
    _poll(run, task, begin_ns + 50 * MS, 500, type="fail", reply=refused, took_ns=1_500 * MS)


@legal("A stream without credit asks for nothing.")
def a_stream_without_credit(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _without_waiters(run, task)
    _stream(run, task, begin_ns - 3 * MS, begin_ns - 2 * MS)
    assert end_ns > begin_ns


@legal("A server that is stopped answers no Retrieve, and sends nothing on a stream.")
def a_wait_at_a_server_that_is_stopped(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _without_waiters(run, task)
    _fault(run, begin_ns, end_ns, "pause", "api")
    lost = {"error": "DEADLINE_EXCEEDED", "message": ""}
    _poll(run, task, begin_ns + 50 * MS, 500, type="info", reply=lost, took_ns=1_500 * MS)
    _stream(run, task, begin_ns, end_ns)


def _short(run: Edited, *, ready_ms: int) -> None:
    _long_ready(run, ready_ms)


legal("A task may be ready for less than the bound.", "ready_for_a_moment")(
    partial(_short, ready_ms=200)
)


@legal("Where servers cannot hear from the store, they cannot hear of a ready task.")
def a_link_to_the_store_that_is_stalled(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _times(run, task)
    _fault(run, begin_ns - 500 * MS, end_ns, "stalled", "api-store")


@legal("A shard that takes no writes gives no leases.")
def a_shard_in_trouble(run: Edited) -> None:
    task = _long_ready(run)
    begin_ns, end_ns = _times(run, task)
    _hinder(run, task.topic, begin_ns - 100 * MS, end_ns)
