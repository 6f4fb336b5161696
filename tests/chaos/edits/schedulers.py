"""Edits of what the schedulers decide: epochs and owners, attempts and backoffs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.chaos.edits.base import Edited, Json, TaskTrace
from tests.chaos.edits.clients import MS, has
from tests.chaos.edits.registry import edit, legal

# Leadership ------------------------------------------------------------------------------------


def _of_the_last_epoch(run: Edited, *ops: str) -> list[Json]:
    """The entries of one shard in its last epoch, of those transitions."""
    last = next(entry for entry in reversed(run.journal) if entry["op"] == "promote")
    return [
        entry
        for entry in run.journal
        if all(entry[key] == last[key] for key in ("topic", "shard", "epoch"))
        and (not ops or entry["op"] in ops)
    ]


@edit("G12", "One entry of a client's transition is of the epoch before.")
def a_transition_of_the_epoch_before(run: Edited) -> None:
    _of_the_last_epoch(run, "ack")[-1]["epoch"] -= 1


@edit("G12", "The deposed scheduler promoted a task after its successor had.")
def a_deposed_scheduler_that_goes_on(run: Edited) -> None:
    entries = _of_the_last_epoch(run, "promote")
    first = next(
        entry
        for entry in run.journal
        if entry["op"] == "promote"
        and entry["epoch"] < entries[-1]["epoch"]
        and (entry["topic"], entry["shard"]) == (entries[-1]["topic"], entries[-1]["shard"])
    )
    entries[-1] |= {"epoch": first["epoch"], "owner": first["owner"]}


@edit("G12", "Two schedulers took turns within one epoch.")
def two_owners_in_turn(run: Edited) -> None:
    for entry in _of_the_last_epoch(run, "promote", "expire")[::2]:
        entry["owner"] = "f" * 16


@edit("G12", "An epoch was counted on for one entry, and then back.")
def an_epoch_ahead_of_its_time(run: Edited) -> None:
    entries = _of_the_last_epoch(run)
    entries[len(entries) // 2]["epoch"] += 1


def _led(run: Edited, *, for_ms: int) -> None:
    """Another scheduler reports for so long that it leads every shard too."""
    at_ns = run.end_ns // 2
    samples = [(ms, 8.0) for ms in range(0, for_ms, 1_000)]
    for after_ms, value in [*samples, (for_ms, 0.0)]:
        run.events.append(
            {
                "index": 2_000_000 + after_ms, "time_ns": at_ns + after_ms * MS,
                "process": "scheduler9", "type": "info", "op": "metric",
                "reply": {"name": "shards_led", "value": value},
            }
        )  # fmt: skip
    run.events.sort(key=lambda event: event["time_ns"])


edit("G12", "For 15 s schedulers lead more shards than there are.", "two_leaders_for_long")(
    partial(_led, for_ms=15_000)
)
legal("A deposed scheduler may take itself for the leader for a moment.", "two_leaders_shortly")(
    partial(_led, for_ms=100)
)


# Attempts and backoffs ---------------------------------------------------------------------------


def tried_again(op: str) -> Callable[[TaskTrace], object]:
    """Tasks that one transition sent back to wait for their next attempt."""

    def fits(task: TaskTrace) -> object:
        return [e for e in task.made(op) if e["to"] == "scheduled"] and not any(
            call.request.get("delay_ms") is not None for call in task.calls if call.op == "nack"
        )

    return fits


def _too_soon(run: Edited, *, op: str) -> None:
    entry = next(e for e in run.task(tried_again(op)).made(op) if e["to"] == "scheduled")
    entry["due_ms"] = entry["at_ms"] + 1


for op in ("nack", "expire"):
    edit(
        "G10",
        f"After an {op} the store keeps a due time that is sooner than the backoff.",
        f"a_backoff_that_is_short_after_{op}",
    )(partial(_too_soon, op=op))


def _not_given_back(run: Edited, *, op: str) -> None:
    run.task(lambda s: s.made(op)).made(op)[0]["attempt"] += 1


for op in ("release", "snooze"):
    edit(
        "G10",
        f"A {op} does not give back its attempt, so the task dies one attempt too early.",
        f"a_{op}_that_costs_an_attempt",
    )(partial(_not_given_back, op=op))


@edit("G10", "The second attempt is counted as the first one: the bound is never reached.")
def an_attempt_that_is_not_counted(run: Edited) -> None:
    task = run.task(
        lambda s: (
            [e["attempt"] for e in s.made("lease")][:2] == [1, 2]
            and len(s.leases) > 1
            and not any(s.answered(op) for op in ("release", "snooze", "run_again"))
        )
    )
    task.made("lease")[1]["attempt"] = 1
    task.leases[1][1]["attempt"] = 1


@edit("G10", "A nack of the last allowed attempt sent the task round again.")
def tried_beyond_its_last_attempt(run: Edited) -> None:
    task = run.task(tried_again("nack"))
    for entry in task.entries:
        entry["attempt"] += 6
    for _, lease in task.leases:
        lease["attempt"] += 6


# What repeats and overlaps ---------------------------------------------------------------------


def _repeated(run: Edited, *, op: str) -> None:
    call = run.task(has(op)).answered(op)[0]
    run.insert(call.end["time_ns"], op, call.request, call.reply, took_ns=1_000)


for op in ("nack", "release", "snooze", "run_again"):
    legal(
        "A verdict that is repeated before the next lease gets the same answer.",
        f"a_{op}_that_is_repeated",
    )(partial(_repeated, op=op))


def _overlapping_look(run: Edited, *, state: str) -> None:
    """A look that began before an ack and ended after it."""
    task = run.task(lambda s: s.answered("ack") and s.leases and not s.answered("extend"))
    ack = task.answered("ack")[-1]
    entry = task.made("lease" if state == "leased" else "ack")[-1]
    reply = {
        "state": state,
        **{key: entry[key] for key in ("revision", "incarnation", "promotion", "attempt", "run")},
        "due_ms": entry["due_ms"],
    }
    begin_ns = ack.begin["time_ns"] - MS
    run.insert(
        begin_ns, "get", {"topic": task.topic, "id": task.id}, reply,
        took_ns=ack.end["time_ns"] + MS - begin_ns,
    )  # fmt: skip


for state in ("leased", "succeeded"):
    legal(
        "A look beside the ack may see the task before it or after it.",
        f"a_look_beside_an_ack_that_sees_{state}",
    )(partial(_overlapping_look, state=state))


@legal("An ack that came after the lease's end, and before another lease, may be accepted.")
def an_ack_after_the_lease_ended(run: Edited) -> None:
    task = run.task(lambda s: s.answered("ack") and len(s.leases) == 1 and not s.answered("extend"))
    call, lease = task.leases[0]
    ack = task.made("ack")[0]
    call.request["lease_ms"] = ack["at_ms"] - lease["store_ms"] - 1
    lease["expire_ms"] = ack["at_ms"] - 1
