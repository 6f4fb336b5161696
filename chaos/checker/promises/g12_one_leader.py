"""G12 one leader: per shard, epochs only grow in the surviving lineage, and one has one owner.

An owner is the scheduler whose nonce a promotion or an expiry was made with; the journal has a
digest of it. What a deposed store granted is void, and not in the surviving journal.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.checker.verdict import Anomaly, Found
from chaos.checker.view import MS, RunView, seconds
from chaos.history.journal import Entry
from chaos.history.reader import Note

SHARDS_LED = "shards_led"
"""A metric of schedulers: how many shards each reports to lead; sampled all through a run."""
PROBE_SHARDS = 1
"""The shards of a topic of the harness itself, which is not part of the history."""


def check(view: RunView) -> Found:
    """The journal in its order, then the claims."""
    found = Found()
    assert view.journal is not None
    latest: dict[tuple[str, int], tuple[int, Entry]] = {}
    for position, entry in enumerate(view.journal.entries):
        found.looked_at += 1
        shard = (entry.topic, entry.shard)
        before = latest.get(shard)
        if before is not None and entry.epoch < before[1].epoch:
            summary = (
                f"was {entry.op}d in epoch {entry.epoch} at {entry.at_ms} ms, after the shard had "
                f"been in epoch {before[1].epoch} at {before[1].at_ms} ms"
            )
            found.anomalies.append(view.of_entries("G12", summary, before, (position, entry)))
        latest[shard] = (position, entry)
    found.anomalies += _two_owners(view)
    found.anomalies += _too_many(view)
    return found


def _two_owners(view: RunView) -> Iterator[Anomaly]:
    """An epoch in which two schedulers moved tasks; once a shard."""
    assert view.journal is not None
    owners: dict[tuple[str, int, int], tuple[int, Entry]] = {}
    named: set[tuple[str, int]] = set()
    for position, entry in enumerate(view.journal.entries):
        shard = (entry.topic, entry.shard)
        if not entry.owner or shard in named:
            continue
        first = owners.setdefault((*shard, entry.epoch), (position, entry))
        if first[1].owner != entry.owner:
            named.add(shard)
            summary = (
                f"was {entry.op}d at {entry.at_ms} ms by owner {entry.owner} of shard "
                f"{entry.shard} in epoch {entry.epoch}, which was owned by {first[1].owner} at "
                f"{first[1].at_ms} ms"
            )
            yield view.of_entries("G12", summary, first, (position, entry))


def _too_many(view: RunView) -> list[Anomaly]:
    """More shards led than there are, for longer than it takes a deposed one to find out.

    For a moment two may report that they lead; that is what fencing is for. One that is refused
    stops leading, so if the overlap lasts, neither was refused.
    """
    shards = sum(topic.shards for topic in view.run.topics.values()) + PROBE_SHARDS
    # What was made during the run is counted from its beginning on.
    shards += sum(ops[0].request.shards for ops in view.grouped.created.values())
    led: dict[str, float] = {}
    since: Note | None = None
    for note in view.history.notes:
        if note.op != "metric" or note.value.name != SHARDS_LED:
            continue
        led[note.process] = note.value.value
        if sum(led.values()) <= shards:
            since = None
        elif since is None:
            since = note
        elif note.time_ns - since.time_ns > view.bounds.recovery_ms * MS:
            who = ", ".join(f"{process} {count:g}" for process, count in led.items() if count)
            summary = (
                f"from {seconds(since.time_ns)} (op {since.index}) to {seconds(note.time_ns)} "
                f"(op {note.index}) schedulers led more than the {shards} shards that there are: "
                f"{who}"
            )
            return [Anomaly("G12", summary, events=(since.index, note.index))]
    return []
