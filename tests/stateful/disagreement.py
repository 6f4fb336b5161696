"""Which promise is broken where the store and the specification disagree (level 2)."""

from __future__ import annotations

from typing import Any

from models import operations as ops
from models.queue import Shard

_PROMISES: dict[type, str] = {
    ops.Enqueue: "G2 no loss",
    ops.Retrieve: "G7 one holder",
    ops.Ack: "G9 ack is final",
    ops.RunAgain: "G13 idempotent",
    ops.Nack: "G8 fenced",
    ops.Extend: "G8 fenced",
    ops.Release: "G8 fenced",
    ops.Snooze: "G8 fenced",
    ops.Cancel: "G4 cancel is final",
    ops.Acquire: "G12 one leader",
    ops.Resign: "G12 one leader",
    ops.Promote: "G3 promote once",
    ops.Reap: "G10 retry bound",
}


def promise_of_answer(op: ops.Operation, *answers: ops.Response) -> str:
    """The promise that a wrong answer to an operation endangers."""
    said = {answer.status for answer in answers} | {
        result[0] for results in _disputed(answers) for result in results if result
    }
    if said & {"NOT_LEADER", "LEASE_LOST"}:
        return "G8 fenced"
    if "CLOCK_UNSAFE" in said:
        return "G5 never early"
    if "REQUEST_EXPIRED" in said:
        return "G13 idempotent"
    moments = {answer.now_ms for answer in answers}
    if len(moments) > 1 and len({answer.results for answer in answers}) == 1:
        return "G5 never early"
    if isinstance(op, ops.Enqueue) and _same_but_for(4, answers):
        if op.on_conflict == "debounce" and len(answers) > 1 and _later(4, answers):
            return "G6 bounded lateness"
        return "G5 never early"
    if isinstance(op, ops.Nack) and _same_but_for(3, answers):
        return "G10 retry bound"
    if isinstance(op, ops.Retrieve) and _fewer_leases(answers):
        return "G14 prompt delivery"
    return _PROMISES.get(type(op), "G13 idempotent")


def _fewer_leases(answers: tuple[ops.Response, ...]) -> bool:
    """Whether an answer lacks leases of the expected one, and those that it has are the same."""
    expected, *others = answers
    want: Any = expected.results[0] if expected.results else ("", 0, ())
    for answer in others:
        have: Any = answer.results[0] if answer.results else ("", 0, ())
        if have[0] == want[0] and set(have[2]) < set(want[2]):
            return True
    return False


def _disputed(answers: tuple[ops.Response, ...]) -> list[tuple[Any, ...]]:
    """For each item of a batch the results that the answers give for it, unless these are equal.

    One item that lost its lease says nothing about a wrong due time of another.
    """
    items = list(zip(*(answer.results for answer in answers), strict=False))
    disputed = [results for results in items if len(set(results)) > 1]
    same_count = len({len(answer.results) for answer in answers}) == 1
    return disputed if disputed and same_count else [answer.results for answer in answers]


def _same_but_for(field: int, answers: tuple[ops.Response, ...]) -> bool:
    """Whether answers differ in the due times alone, which stand at ``field``, the last one."""
    return len({tuple(result[:field] for result in answer.results) for answer in answers}) == 1


def _later(field: int, answers: tuple[ops.Response, ...]) -> bool:
    """Whether a due time of the answer lies behind the expected one."""
    expected: Any = answers[0].results
    answer: Any = answers[1].results
    return any(
        have[field] > want[field]
        for want, have in zip(expected, answer, strict=True)
        if len(want) > field < len(have)
    )


def label_of(response: ops.Response) -> str:
    """The status of a response, or that of its first result."""
    if not response.results:
        return response.status
    first = response.results[0]
    return str(first[0]) if first and isinstance(first[0], str) else "OK"


def difference_of(expected: Shard, kept: Shard) -> str:
    """What the two disagree on, and the promise that would break."""
    for task_id in sorted(expected.tasks.keys() | kept.tasks.keys()):
        want, have = expected.tasks.get(task_id), kept.tasks.get(task_id)
        if want != have:
            promise = "G2 no loss" if have is None else _task_promise(want, have)
            return f"{promise}: task {task_id}\n  is        {have}\n  should be {want}"
    for name in ("nonce", "epoch", "leader_until_ms", "leader_rank"):
        if getattr(expected, name) != getattr(kept, name):
            have, want = getattr(kept, name), getattr(expected, name)
            return f"G12 one leader: {name} is {have!r}, not {want!r}"
    if expected.counts != kept.counts:
        return f"G11 conservation: counters are {kept.counts}, not {expected.counts}"
    if expected.mark_ms != kept.mark_ms:
        return (
            f"G5 never early: the clock high-water mark is {kept.mark_ms}, not {expected.mark_ms}"
        )
    if expected.records != kept.records:
        return f"G13 idempotent: records are {kept.records}, not {expected.records}"
    return f"G13 idempotent: the shard is {kept}, not {expected}"


def _task_promise(want: Any, have: Any) -> str:
    """The promise that a task in a wrong state or with a wrong field endangers."""
    if want is None:
        return "G1 no phantom"
    checks = (
        ("incarnation", "G13 idempotent"),
        ("promotion", "G3 promote once"),
        ("attempt", "G10 retry bound"),
        ("run", "G10 retry bound"),
        ("snoozes", "G10 retry bound"),
        ("created_ms", "G6 bounded lateness"),
        ("state", {
            ops.State.CANCELLED: "G4 cancel is final",
            ops.State.SUCCEEDED: "G9 ack is final",
            ops.State.LEASED: "G7 one holder",
            ops.State.DEAD: "G10 retry bound",
        }),
        ("content", "G1 no phantom"),
        ("token", "G8 fenced"),
        ("settled", "G13 idempotent"),
        ("policy", "G10 retry bound"),
        ("due_ms", "G5 never early"),
        ("at_ms", "G5 never early"),
    )  # fmt: skip
    for name, promise in checks:
        if getattr(want, name) != getattr(have, name):
            if isinstance(promise, dict):
                return promise.get(want.state, "G2 no loss")
            return promise
    return "G13 idempotent"
