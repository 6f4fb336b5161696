"""G12 one leader: per shard, epochs only grow in the surviving lineage, and one has one owner.

An owner is what schedulers say of themselves. What a deposed store granted is void, so it counts
only where the transition it was said with is in the surviving journal.
"""

from __future__ import annotations

from chaos.journal import Entry
from chaos.verdict import Anomaly, Found
from chaos.view import View, seconds


def check(view: View) -> Found:
    """The journal in its order, then the claims."""
    found = Found()
    assert view.journal is not None
    latest: dict[tuple[str, int], tuple[int, Entry]] = {}
    for position, entry in enumerate(view.journal.entries):
        found.looked_at += 1
        shard = (entry.topic, entry.shard)
        before = latest.get(shard)
        if before is not None and entry.epoch < before[1].epoch:
            story = (
                f"was {entry.op}d in epoch {entry.epoch} at {entry.at_ms} ms, after the shard had "
                f"been in epoch {before[1].epoch} at {before[1].at_ms} ms"
            )
            found.anomalies.append(view.of_entries("G12", story, before, (position, entry)))
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
            story = (
                f"topic {claim.topic} shard {claim.shard} epoch {claim.epoch} was owned by {owner} "
                f"(op {index}) and by {note.process} at {seconds(note.time_ns)} (op {note.index})"
            )
            found.anomalies.append(Anomaly("G12", story, claim.topic, events=(index, note.index)))
    return found
