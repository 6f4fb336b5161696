"""G12 one leader: per shard, epochs only grow in the surviving lineage, and one has one owner.

An owner is what schedulers say of themselves. What a deposed store granted is void, so it counts
only where the transition it was said with is in the surviving journal.
"""

from __future__ import annotations

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
    owners: dict[tuple[str, int, int], tuple[str, int]] = {}
    for note in view.history.notes:
        if note.op != "leader" or not note.value.leads:
            continue
        claim = note.value
        if claim.lineage not in view.lineages:
            continue
        key = (claim.topic, claim.shard, claim.epoch)
        owner, index = owners.setdefault(key, (note.process, note.index))
        if owner != note.process:
            summary = (
                f"topic {claim.topic} shard {claim.shard} epoch {claim.epoch} was owned by {owner} "
                f"(op {index}) and by {note.process} at {seconds(note.time_ns)} (op {note.index})"
            )
            found.anomalies.append(Anomaly("G12", summary, claim.topic, events=(index, note.index)))
    found.anomalies += _too_many(view)
    return found


def _too_many(view: RunView) -> list[Anomaly]:
    """More shards led than there are, for longer than it takes a deposed one to find out.

    For a moment two may report that they lead; that is what fencing is for. One that is refused
    stops leading, so if the overlap lasts, neither was refused.
    """
    shards = sum(topic.shards for topic in view.run.topics.values()) + PROBE_SHARDS
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
