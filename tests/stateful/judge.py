"""Judges the history of a story by the promises.

The server is not believed: what a caller was told, in the order in which callers were told, is
held against what other callers were told and against what the surviving store holds at the end.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ddq.v1 import delay_queue_service_pb2 as pb
from models.operations import HELD, State
from models.queue import Shard
from tests.stateful.story import Event, History
from tests.stateful.world import Loss


class PromiseBrokenError(AssertionError):
    """A promise was broken; the message begins with its id and names the witnesses."""


@dataclass(frozen=True)
class Delivery:
    """A lease as its worker was told of it."""

    began: int
    ended: int
    id: str
    incarnation: int
    promotion: int
    run: int
    attempt: int
    token: bytes
    payload: bytes
    revision: int
    due_ms: int
    at_ms: int
    expiry_ms: int


def deliveries(history: History) -> list[Delivery]:
    """Every lease once: a repeat of a Retrieve tells of the same one again."""
    found: dict[bytes, Delivery] = {}
    for event in history.events:
        if event.op != "Retrieve" or not event.ok:
            continue
        for lease in event.reply.tasks:
            task = lease.task
            found.setdefault(
                lease.lease_token,
                Delivery(
                    event.began, event.ended or 0, task.id, task.incarnation, task.promotion,
                    task.run, task.attempt, lease.lease_token, task.payload, task.revision,
                    task.due_time.ToMilliseconds(), lease.receipt.store_time.ToMilliseconds(),
                    lease.lease_expire_time.ToMilliseconds(),
                ),
            )  # fmt: skip
    return list(found.values())


def judge(history: History, final: Shard, journal: list[dict[str, Any]], *, drained: bool) -> None:
    """Raises for the first promise that is broken.

    Args:
        final: the surviving shard at the end.
        journal: its transitions, oldest first.
        drained: whether workers had the time to finish what was left.

    Raises:
        PromiseBrokenError: names promise and witnesses.
    """
    events, given = history.events, deliveries(history)
    by_id: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in given:
        by_id[delivery.id].append(delivery)

    for delivery in given:
        _phantom(delivery, events)
        _never_early(delivery)
        _retry_bound(delivery, by_id[delivery.id], events)
        _promoted_once(delivery, by_id[delivery.id], events)
        _one_holder(delivery, by_id[delivery.id], events)
    for event in events:
        if event.op == "Enqueue" and event.ok:
            _not_lost(event, final, drained=drained)
            _not_pushed_back(event)
        elif event.op == "Cancel":
            _cancel_is_final(event, events, by_id, final)
        elif event.op in {"Ack", "RunAgain"} and event.ok:
            _ack_is_final(event, by_id, final)
        elif event.op == "GetTask":
            _read_is_true(event, events)
        if event.op in {"Ack", "Nack", "Extend", "Release", "Snooze"} and event.ok:
            _fenced(event, by_id)
    _idempotent(by_id, events)
    _journal(journal)


def judge_silence(history: History, lost: Loss | None) -> None:
    """Nothing may be said, as if nothing had happened, by a store that lost what it had confirmed.

    Args:
        lost: when, in the history's moments, and the greatest revision that was kept.

    Raises:
        PromiseBrokenError: something was said.
    """
    if lost is None:
        return
    told = [
        event for event in history.events
        if event.ok and (event.ended or 0) <= lost.moment and _revision(event) > lost.kept_revision
    ]  # fmt: skip
    if not told:
        return
    for event in history.events:
        if event.began <= lost.moment:
            continue
        denied = event.error is not None and event.error.reason in _STATEMENTS
        _require(
            not (event.ok or denied),
            "G2 no loss",
            f"{told[0].op} (op {told[0].ended}) was acknowledged and lost, and {event.op} (op "
            f"{event.ended}) was answered as if nothing had happened",
        )


_STATEMENTS = {
    "TASK_NOT_FOUND", "TASK_FINISHED", "TASK_LEASED", "TASK_READY", "LEASE_LOST",
    "TASK_ID_CONFLICT", "TOPIC_NOT_FOUND",
}  # fmt: skip


def _revision(event: Event) -> int:
    return int(getattr(getattr(event.reply, "result", None), "revision", 0))


_ENDS = {"Ack", "RunAgain", "Nack", "Release", "Snooze"}


def _require(condition: bool, promise: str, story: str) -> None:
    if not condition:
        raise PromiseBrokenError(f"{promise}: {story}")


def _phantom(delivery: Delivery, events: list[Event]) -> None:
    sent = [e for e in events if e.op == "Enqueue" and e.request.task.id == delivery.id]
    _require(
        any(e.request.task.payload == delivery.payload and e.began < delivery.ended for e in sent),
        "G1 no phantom",
        f"{delivery.id} was delivered as {delivery.payload!r}, which nobody enqueued",
    )


def _never_early(delivery: Delivery) -> None:
    _require(
        delivery.at_ms >= delivery.due_ms,
        "G5 never early",
        f"{delivery.id} was due at {delivery.due_ms} and delivered at {delivery.at_ms}",
    )


def _retry_bound(delivery: Delivery, same: list[Delivery], events: list[Event]) -> None:
    sent = [e for e in events if e.op == "Enqueue" and e.request.task.id == delivery.id]
    # Two may have asked for the id; the policy is that of the one that created it. Whose that was
    # is not known if its answer never came.
    creators = [e for e in sent if e.ok and e.reply.result.created] or sent
    policy = max((e.request.task.retry_policy for e in creators), key=lambda p: p.max_attempts)
    _require(
        delivery.attempt <= policy.max_attempts,
        "G10 retry bound",
        f"{delivery.id} was leased for attempt {delivery.attempt} of {policy.max_attempts}",
    )
    wait_ms = policy.initial_backoff.ToMilliseconds()
    for event in events:
        if event.op != "Nack" or not event.ok or event.request.id != delivery.id:
            continue
        if event.reply.result.state != State.SCHEDULED:
            continue
        before = next((d for d in same if d.token == event.request.lease_token), None)
        run = (delivery.incarnation, delivery.run)
        follows = before is not None and (before.incarnation, before.run) == run
        if before and follows and before.attempt + 1 == delivery.attempt:
            earliest_ms = before.at_ms + wait_ms
            _require(
                delivery.at_ms >= earliest_ms,
                "G10 retry bound",
                f"{delivery.id} came back at {delivery.at_ms}, before {earliest_ms}",
            )


def _promoted_once(delivery: Delivery, same: list[Delivery], events: list[Event]) -> None:
    """A promotion is delivered by one attempt, unless a lease of it was handed back."""
    if any(e.op == "Release" and e.request.id == delivery.id for e in events):
        return
    twins = [
        other
        for other in same
        if (other.incarnation, other.promotion) == (delivery.incarnation, delivery.promotion)
    ]
    _require(
        len(twins) == 1,
        "G3 promote once",
        f"{delivery.id} was promoted twice as number {delivery.promotion}: delivered at "
        + " and ".join(str(twin.at_ms) for twin in twins),
    )


def _one_holder(delivery: Delivery, same: list[Delivery], events: list[Event]) -> None:
    for other in same:
        if other.token == delivery.token or other.revision < delivery.revision:
            continue
        ended = any(
            e.began < other.ended
            and (
                (e.op in _ENDS and e.request.lease_token == delivery.token)
                or (e.op == "Cancel" and e.request.id == delivery.id)
            )
            for e in events
        )
        _require(
            ended or other.at_ms >= delivery.expiry_ms,
            "G7 one holder",
            f"{delivery.id} was leased at {delivery.at_ms} until {delivery.expiry_ms}, and to "
            f"another worker at {other.at_ms}",
        )


def _not_lost(event: Event, final: Shard, *, drained: bool) -> None:
    task_id = event.request.task.id
    task = final.tasks.get(task_id)
    _require(
        task is not None,
        "G2 no loss",
        f"{task_id} was acknowledged (op {event.ended}) and is gone",
    )
    assert task is not None
    _require(
        not drained or task.state not in HELD or task.state == State.DEAD,
        "G6 bounded lateness",
        f"{task_id} is still {task.state.name} after everything healed and workers went on",
    )


def _cancel_is_final(
    event: Event, events: list[Event], by_id: dict[str, list[Delivery]], final: Shard
) -> None:
    task_id = event.request.id
    after = [d for d in by_id[task_id] if event.ended is not None and d.began > event.ended]
    task = final.tasks.get(task_id)
    if event.ok:
        incarnation = event.reply.result.incarnation
        late = [d for d in after if d.incarnation == incarnation]
        _require(
            not late,
            "G4 cancel is final",
            f"{task_id} was cancelled (op {event.ended}) and delivered (op "
            f"{late[0].ended if late else ''})",
        )
        replaced = task is not None and task.incarnation > incarnation
        _require(
            replaced or (task is not None and task.state == State.CANCELLED),
            "G4 cancel is final",
            f"{task_id} was cancelled (op {event.ended}) and is {task and task.state.name} now",
        )
    elif event.error is not None and event.error.reason == "TASK_NOT_FOUND":
        known = [
            e for e in events
            if e.op == "Enqueue" and e.ok and e.request.task.id == task_id
            and e.ended is not None and e.ended < event.began
        ]  # fmt: skip
        _require(
            not known,
            "G4 cancel is final",
            f"{task_id} was said not to be found (op {event.ended}) after it was acknowledged",
        )
    elif _revived(task_id, events):
        return
    elif event.error is not None and event.error.reason == "TASK_FINISHED":
        _require(
            not after and (task is None or task.state not in HELD or task.state == State.DEAD),
            "G4 cancel is final",
            f"{task_id} was said to have finished (op {event.ended}), and lived on",
        )


def _revived(task_id: str, events: list[Event]) -> bool:
    """Whether a finished task may have been followed by another of its id."""
    return any(
        e.op == "Enqueue"
        and e.request.task.id == task_id
        and e.request.on_conflict == pb.ON_CONFLICT_DEBOUNCE
        for e in events
    )


def _not_pushed_back(event: Event) -> None:
    """A debounced task is due within its limit."""
    if event.request.on_conflict != pb.ON_CONFLICT_DEBOUNCE:
        return
    due_ms = event.reply.result.due_time.ToMilliseconds()
    at_ms = event.reply.receipt.store_time.ToMilliseconds()
    limit_ms = event.request.debounce_limit.ToMilliseconds()
    _require(
        due_ms <= at_ms + limit_ms,
        "G6 bounded lateness",
        f"{event.request.task.id} was debounced at {at_ms} and is due at {due_ms}, beyond its "
        f"limit of {limit_ms} ms",
    )


def _read_is_true(event: Event, events: list[Event]) -> None:
    """What a reader is told is not behind what others were told before it asked."""
    before = [
        e for e in events
        if e.ok and e.ended is not None and e.ended < event.began
        and (e.request.task.id if e.op == "Enqueue" else getattr(e.request, "id", "")) == (
            event.request.id
        )
    ]  # fmt: skip
    if event.error is not None and event.error.reason == "TASK_NOT_FOUND":
        _require(
            not any(e.op == "Enqueue" for e in before),
            "G2 no loss",
            f"{event.request.id} was not there for a reader (op {event.ended}) after it was "
            "acknowledged",
        )
    if not event.ok:
        return
    for earlier in before:
        if earlier.op not in {"Cancel", "Ack", "RunAgain"}:
            continue
        promise = "G4 cancel is final" if earlier.op == "Cancel" else "G9 ack is final"
        _require(
            event.reply.task.revision >= earlier.reply.result.revision,
            promise,
            f"a reader saw {event.request.id} alive (op {event.ended}) after its {earlier.op} was "
            f"acknowledged (op {earlier.ended})",
        )


def _ack_is_final(event: Event, by_id: dict[str, list[Delivery]], final: Shard) -> None:
    task_id = event.request.id
    mine = next((d for d in by_id[task_id] if d.token == event.request.lease_token), None)
    if mine is None:
        return
    late = [
        d for d in by_id[task_id]
        if d.incarnation == mine.incarnation and event.ended is not None and d.began > event.ended
    ]  # fmt: skip
    _require(
        not late,
        "G9 ack is final",
        f"{task_id} was acked (op {event.ended}) and delivered again "
        f"(op {late[0].ended if late else ''})",
    )
    task = final.tasks.get(task_id)
    _require(
        task is None or task.incarnation != mine.incarnation or task.state == State.SUCCEEDED,
        "G9 ack is final",
        f"{task_id} was acked (op {event.ended}) and is {task and task.state.name} now",
    )


def _fenced(event: Event, by_id: dict[str, list[Delivery]]) -> None:
    """A token that somebody else's lease superseded must not have been accepted since."""
    same = by_id[event.request.id]
    mine = next((d for d in same if d.token == event.request.lease_token), None)
    if mine is None:
        return
    followers = [d for d in same if d.revision > mine.revision and d.ended < event.began]
    changed = event.reply.result.revision if event.op == "Ack" else 0
    accepted = event.op == "Extend" or (event.op == "Ack" and followers and changed > max(
        d.revision for d in followers
    ))  # fmt: skip
    _require(
        not (followers and accepted),
        "G8 fenced",
        f"{event.op} of {event.request.id} (op {event.ended}) was accepted with a token that "
        f"another lease had superseded",
    )


def _idempotent(by_id: dict[str, list[Delivery]], events: list[Event]) -> None:
    for task_id, same in by_id.items():
        asked = sum(e.op == "Enqueue" and e.request.task.id == task_id for e in events)
        # However often it is repeated: one next run a token.
        asked += len({
            e.request.lease_token for e in events if e.op == "RunAgain" and e.request.id == task_id
        })  # fmt: skip
        lives = {d.incarnation for d in same}
        _require(
            len(lives) <= asked,
            "G13 idempotent",
            f"{task_id} was enqueued {asked} times and has lived {len(lives)} times",
        )


def _journal(journal: list[dict[str, Any]]) -> None:
    """What the surviving lineage says of itself."""
    seen: set[tuple[Any, ...]] = set()
    epoch = 0
    for entry in journal:
        _require(
            entry["epoch"] >= epoch,
            "G12 one leader",
            f"the epoch fell from {epoch} to {entry['epoch']}",
        )
        epoch = entry["epoch"]
        if entry["op"] != "promote":
            continue
        key = (entry["id"], entry["incarnation"], entry["promotion"])
        _require(key not in seen, "G3 promote once", f"the journal promotes {key} twice")
        seen.add(key)
        _require(
            entry["at_ms"] >= entry["due_ms"],
            "G5 never early",
            f"the journal promotes {key} at {entry['at_ms']}, due at {entry['due_ms']}",
        )
