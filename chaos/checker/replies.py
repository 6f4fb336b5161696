"""What replies say, held against the journal and against what was asked.

The promises' own rules look for what breaks a promise. These look for any statement of the server
that the surviving journal contradicts: a mutation that it does not hold, a due time that is not the
one asked for, a look at a task that is not as the journal has it, a lease of another length, a
count that falls. So a finding here counts for a task only where no promise's own rule has found
anything: it is then the one sign that something is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from chaos.checker.cases import Case
from chaos.checker.order import DONE, UNDONE
from chaos.checker.resolve import SLACK_NS
from chaos.checker.verdict import Anomaly
from chaos.checker.view import MS, RunView, seconds
from chaos.history.journal import Entry
from chaos.history.operations import Stamp
from chaos.history.reader import Op

Witness = tuple[int, Entry]
"""An entry of the journal and its position."""

MADE = {
    "ack": "ack",
    "nack": "nack",
    "extend": "extend",
    "release": "release",
    "snooze": "snooze",
    "cancel": "cancel",
    "reschedule": "reschedule",
    "delete_dead": "purge",
    "run_again": "enqueue",
}
"""The transition that an acknowledged operation names by its revision; enqueues are apart."""


@dataclass(frozen=True, slots=True)
class _False:
    """A statement that is not true.

    Attributes:
        said: it in words, to follow the task's name.
    """

    promise: str
    said: str
    case: Case
    op: Op
    entry: Witness | None = None


def false_replies(view: RunView) -> list[Anomaly]:
    """Every reply that the journal, or its own request, contradicts; the first of each task."""
    found = [
        *_false_counts(view),
        *_more_than_asked(view),
        *_weak_receipts(view),
        *_leases_of_no_request(view),
    ]
    for case in view.cases:
        first = next(chain(_statements(view, case), _leases(view, case)), None)
        if first is not None:
            entries = () if first.entry is None else (first.entry[0],)
            found.append(view.anomaly(first.promise, first.said, case, first.op, entries=entries))
    return found


# One task --------------------------------------------------------------------------------------


def _statements(view: RunView, case: Case) -> Iterator[_False]:
    """Acknowledged operations and looks against the entries of their revisions."""
    if not view.journaled(case.topic) or not view.journal_complete:
        return
    entries = _by_revision(case)
    for op in _spoken(case):
        revision = op.reply.revision
        witness = entries.get(revision)
        if witness is None:
            if revision:
                yield _False(
                    UNDONE[op.op],
                    f"was {DONE[op.op]} as revision {revision} at {view.at(op)}, which the "
                    f"surviving journal does not hold",
                    case,
                    op,
                )
            continue
        made = _made(op)
        if made and witness[1].op != made:
            # A repeat may name the revision that the task has by then.
            if not any(each.op == made and each.revision < revision for _, each in case.entries):
                yield _False(
                    UNDONE[op.op],
                    f"was {DONE[op.op]} as revision {revision} at {view.at(op)}, which the journal "
                    f"has as {witness[1].op}",
                    case,
                    op,
                    witness,
                )
            continue
        yield from _another(view, case, op, witness)
        yield from _another_due_time(view, case, op, witness)


def _by_revision(case: Case) -> dict[int, Witness]:
    """The task's entries."""
    return {witness[1].revision: witness for witness in case.entries}


def _spoken(case: Case) -> Iterator[Op]:
    """Every operation whose reply names a revision of the task."""
    kinds: tuple[Iterable[Op], ...] = (
        case.enqueues,
        case.reschedules,
        case.cancels,
        case.gets,
        case.deletes,
        *case.settles.values(),
    )
    for ops in kinds:
        for op in ops:
            if op.ok:
                yield op


def _made(op: Op) -> str:
    """The transition at the revision of a reply; empty: any, since it may speak of a later one."""
    if op.op == "enqueue":
        return "enqueue" if op.reply.created else ""
    return MADE.get(op.op, "")


_SAME = ("incarnation", "promotion", "attempt", "run")


def _differences(reply: Stamp, entry: Entry) -> Iterator[tuple[str, int, int]]:
    """The numbers that a reply names and the journal has otherwise: which, said, held."""
    for name in _SAME:
        held = getattr(entry, name)
        said = getattr(reply, name, held)
        if said != held:
            yield name, said, held


def _another(view: RunView, case: Case, op: Op, witness: Witness) -> Iterator[_False]:
    """A reply about the task as it was, which is not as the journal has it at that revision."""
    entry = witness[1]
    for name, said, held in _differences(op.reply, entry):
        yield _False(
            UNDONE[op.op],
            f"was {DONE[op.op]} with {name} {said} at {view.at(op)}, where the journal has {held} "
            f"at revision {entry.revision}",
            case,
            op,
            witness,
        )
    state = getattr(op.reply, "state", None)
    if state is not None and state != entry.after:
        yield _False(
            UNDONE[op.op],
            f"was {DONE[op.op]} as {state} at {view.at(op)}, where the journal has it "
            f"{entry.after} at revision {entry.revision}",
            case,
            op,
            witness,
        )


def _another_due_time(view: RunView, case: Case, op: Op, witness: Witness) -> Iterator[_False]:
    """A due time that is not what the reply says, or not what was asked for."""
    entry = witness[1]
    if entry.after != "scheduled":
        return
    said_ms = getattr(op.reply, "due_ms", 0)
    if said_ms and said_ms != entry.due_ms:
        yield _False(
            "G5" if entry.due_ms < said_ms else "G6",
            f"is due at {entry.due_ms} ms by the journal, {op.op} at {view.at(op)} was answered "
            f"with {said_ms} ms",
            case,
            op,
            witness,
        )
    asked_ms = _asked_due_ms(op, entry)
    if asked_ms is not None and entry.due_ms != asked_ms:
        yield _False(
            "G5" if entry.due_ms < asked_ms else "G6",
            f"is due at {entry.due_ms} ms by the journal, {op.op} at {view.at(op)} asked for "
            f"{asked_ms} ms",
            case,
            op,
            witness,
        )


def _asked_due_ms(op: Op, entry: Entry) -> int | None:
    """What a request comes to by the moment at which the store took it; None: it says nothing."""
    request = op.request
    if op.op == "enqueue" and (request.on_conflict == "debounce" or not op.reply.created):
        return None
    if op.op not in {"enqueue", "reschedule", "snooze", "nack", "run_again"}:
        return None
    if request.delay_ms is not None:
        return int(entry.at_ms + request.delay_ms)
    due_ms = getattr(request, "due_ms", None)
    if due_ms is not None:
        # What was due before it was asked for is due now.
        return max(int(due_ms), entry.at_ms)
    # A nack without a delay waits for the backoff, with jitter: G10 bounds it.
    return None if op.op == "nack" else entry.at_ms


# Leases ----------------------------------------------------------------------------------------


def _leases(view: RunView, case: Case) -> Iterator[_False]:
    """Deliveries against their entries, and tokens that no delivery granted."""
    for token, ops in case.settles.items():
        accepted = next((op for op in ops if op.ok), None)
        if accepted is not None and token not in case.tokens:
            yield _False(
                "G8",
                f"was {DONE[accepted.op]} at {view.at(accepted)} with a token that no reply had "
                f"granted",
                case,
                accepted,
            )
    for delivery in case.deliveries:
        for sighting in delivery.sightings:
            other = view.grouped.granted_to[delivery.lease.token]
            if sighting is not other and not _repeats(sighting, other):
                yield _False(
                    "G7",
                    f"was delivered at {view.at(other)}, and under the same token to another "
                    f"request at {view.at(sighting)}",
                    case,
                    sighting,
                )
    if not view.journaled(case.topic) or not view.journal_complete:
        return
    entries = _by_revision(case)
    for delivery in case.deliveries:
        lease = delivery.lease
        witness = entries.get(lease.revision)
        if witness is None or witness[1].op != "lease":
            # A repeat may report a lease as it is after an extension.
            if witness is None:
                yield _False(
                    UNDONE["retrieve"],
                    f"was delivered as revision {lease.revision} at {view.at(delivery.op)}, which "
                    f"the surviving journal does not hold",
                    case,
                    delivery.op,
                )
            continue
        for name, said, held in _differences(lease, witness[1]):
            yield _False(
                UNDONE["retrieve"],
                f"was delivered with {name} {said} at {view.at(delivery.op)}, where the journal "
                f"has {held}",
                case,
                delivery.op,
                witness,
            )
        length_ms = lease.expire_ms - witness[1].at_ms
        asked_ms = view.grouped.asked_ms(delivery.op, view.settings(case.topic).lease_ms)
        if length_ms not in asked_ms:
            yield _False(
                UNDONE["retrieve"],
                f"was delivered at {view.at(delivery.op)} with a lease of {length_ms} ms, where "
                f"{' or '.join(map(str, sorted(asked_ms)))} ms were asked for",
                case,
                delivery.op,
                witness,
            )


def _leases_of_no_request(view: RunView) -> Iterator[Anomaly]:
    """Leases in the journal that no reply reports, and that no request can have made; one a task.

    A reply that was lost may have reported any. So may the first attempt of a Retrieve that took
    longer than the lease: the client's next attempt is not granted what has lapsed by then.
    """
    if not view.clock.known or not view.journal_complete:
        return
    able = [
        (op.begin_ns - SLACK_NS, op.closed_ns + SLACK_NS, op.request.topics)
        for op in view.grouped.retrieves
        if op.outcome == "info" or op.closed_ns - op.begin_ns >= _lapse_ns(view, op)
    ]
    for case in view.cases:
        if not view.journaled(case.topic):
            continue
        reported = {delivery.lease.revision for delivery in case.deliveries}
        for position, entry in case.entries:
            if entry.op != "lease" or entry.revision in reported:
                continue
            at_ns = view.clock.ns_of(entry.at_ms)
            if not any(
                since_ns <= at_ns <= until_ns and case.topic in topics
                for since_ns, until_ns, topics in able
            ):
                said = f"was leased at {entry.at_ms} ms, and no request can have asked for it"
                yield view.of_entries("G7", said, (position, entry))
                break


def _lapse_ns(view: RunView, op: Op) -> int:
    """How long a Retrieve takes in which a lease has been granted and has lapsed again.

    One that waits for longer than its leases run is a reply of a stream, which is not repeated
    within its operation.
    """
    lease_ms = min(
        op.request.lease_ms or view.settings(topic).lease_ms for topic in op.request.topics
    )
    wait_ms = op.request.wait_ms if op.request.wait_ms > lease_ms else 0
    return (wait_ms + lease_ms - view.bounds.clock_error_ms) * MS


def _repeats(one: Op, other: Op) -> bool:
    """Whether one Retrieve is the other one, sent again."""
    return bool(one.request.request_id) and one.request.request_id == other.request.request_id


# Receipts --------------------------------------------------------------------------------------


def _weak_receipts(view: RunView) -> Iterator[Anomaly]:
    """Replies that left before what their topic's durability asks for; the first of each topic.

    An acknowledgement that does not wait may be lost with the master.
    """
    named: set[str] = set()
    for case in view.cases:
        asked = _durability(view, case.topic)
        if case.topic in named or case.topic not in view.run.topics:
            continue
        for op in case.all_ops():
            stamps = _stamps(case, op)
            weak = next((each for each in stamps if _is_weak(each, asked, view.run.replicas)), None)
            if weak is not None:
                named.add(case.topic)
                said = (
                    f"was answered to {op.op} at {view.at(op)} after {weak.durability} with "
                    f"{weak.replicas_acked} of {view.run.replicas} replicas, where the topic asks "
                    f"for {asked or 'what servers do by default'}"
                )
                yield view.anomaly("G2", said, case, op)
                break


def _durability(view: RunView, topic: str) -> str:
    """What the topic's replies wait for; "" where the run does not say."""
    return (view.settings(topic).durability or view.run.durability).lower()


def _stamps(case: Case, op: Op) -> list[Stamp]:
    """What a reply says of the store about this task; a look says nothing."""
    if not op.ok or op.op == "get":
        return []
    if op.op == "retrieve":
        return [each for each in op.reply.leases if (each.topic, each.id) == (case.topic, case.id)]
    return [op.reply] if isinstance(op.reply, Stamp) else []


STRENGTHS = ("", "fast", "quorum", "all")
"""Durabilities, each stronger than those before it; the first is not known."""


def _is_weak(stamp: Stamp, asked: str, replicas: int) -> bool:
    """Whether a reply waited for less than was asked for, or for less than it says.

    A topic of an older server may wait for more than was asked for. Receipts of histories that were
    recorded without them are empty.
    """
    if not stamp.durability:
        return False
    if STRENGTHS.index(stamp.durability) < STRENGTHS.index(asked):
        return True
    return stamp.replicas_acked < _replicas_needed(stamp.durability, replicas)


def _replicas_needed(durability: str, replicas: int) -> int:
    """How many replicas have to confirm a write; one of the majority is the master."""
    if replicas < 0 or durability == "fast":
        return 0
    return replicas if durability == "all" else (replicas + 1) // 2


# Topics ----------------------------------------------------------------------------------------


def _more_than_asked(view: RunView) -> Iterator[Anomaly]:
    """Retrieves that report more tasks, or tasks of other topics, than were asked for."""
    for op in view.grouped.retrieves:
        if not op.ok:
            continue
        leases = op.reply.leases
        if len(leases) > (asked_count := view.grouped.asked_count(op)):
            yield Anomaly(
                "G7",
                f"a Retrieve of {asked_count} tasks got {len(leases)} at {view.at(op)}",
                op.request.topics[0],
                events=(op.end,),
            )
        for lease in leases:
            if lease.topic not in op.request.topics:
                case = view.grouped.case(lease.topic, lease.id)
                said = f"was delivered at {view.at(op)} to a Retrieve that did not name its topic"
                yield view.anomaly("G7", said, case, op)


RISING = ("enqueued", "succeeded", "cancelled", "purged")


def _false_counts(view: RunView) -> Iterator[Anomaly]:
    """Totals of a shard that are lower than an earlier reply had them.

    In FAST they may be those of a store that lost the end of what it had.
    """
    best: dict[tuple[str, int, str], tuple[int, Op]] = {}
    pending: list[Op] = []
    for op in sorted((op for op in view.grouped.stats if op.ok), key=lambda op: op.begin_ns):
        topic = op.request.topic
        if _durability(view, topic) == "fast":
            continue
        for over in [earlier for earlier in pending if earlier.end_ns < op.begin_ns]:
            pending.remove(over)
            for shard, counts in enumerate(over.reply.shards):
                for name in RISING:
                    key = (over.request.topic, shard, name)
                    value = getattr(counts, name)
                    if key not in best or best[key][0] < value:
                        best[key] = (value, over)
        pending.append(op)
        for shard, counts in enumerate(op.reply.shards):
            for name in RISING:
                before = best.get((topic, shard, name))
                if before is not None and getattr(counts, name) < before[0]:
                    yield Anomaly(
                        "G11",
                        f"topic {topic} shard {shard} had {name} {before[0]} at "
                        f"{seconds(before[1].end_ns)} and {getattr(counts, name)} at "
                        f"{seconds(op.end_ns)}",
                        topic,
                        events=(before[1].end, op.end),
                    )
                    return


__all__ = ["false_replies"]
