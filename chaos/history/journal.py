"""The journal of the surviving shards: what the store says it did, the second witness.

One JSON line an entry, in the order of each shard's stream ``ddq:journal:{...}``, with the fields
that the store writes and with topic and shard beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from chaos.history.operations import (
    Value,
)
from chaos.history.reader import BadHistoryError, lines


class Entry(Value, rename={"before": "from", "after": "to"}):
    """One transition.

    Attributes:
        stream_id: its place in the stream, ``ms-sequence``.
        op: what made it: enqueue, promote, lease, extend, ack, nack, release, snooze, expire,
            cancel, reschedule, replace, purge, redrive, set_aside.
        before, after: the task's state; "none" before its enqueue.
        epoch: of the leadership at that moment.
        owner: digest of the nonce of the scheduler that made it; "" if a client did.
        lineage: random tag of the call that made it.
    """

    topic: str
    id: str
    op: str
    incarnation: int
    revision: int
    before: str
    after: str
    shard: int = 0
    stream_id: str = ""
    promotion: int = 0
    attempt: int = 0
    run: int = 1
    due_ms: int = 0
    at_ms: int = 0
    epoch: int = 0
    owner: str = ""
    lineage: str = ""


class Journal(msgspec.Struct):
    """What was read, in the order of the file; ``problems`` as in a history."""

    entries: list[Entry]
    problems: list[str]


_ENTRY = msgspec.json.Decoder(Entry)


def read_journal(path: Path) -> Journal:
    """Reads a journal.

    Raises:
        BadHistoryError: a line that is not an entry.
    """
    journal = Journal([], [])
    for number, line, whole in lines(path):
        try:
            entry = _ENTRY.decode(line)
        except msgspec.DecodeError as error:
            if not whole:
                journal.problems.append(f"{path.name} line {number}: the last line is cut off")
                break
            raise BadHistoryError(f"{path.name} line {number}: {error}") from None
        entry.topic = sys.intern(entry.topic)
        entry.id = sys.intern(entry.id)
        entry.op = sys.intern(entry.op)
        entry.before = sys.intern(entry.before)
        entry.after = sys.intern(entry.after)
        entry.lineage = sys.intern(entry.lineage)
        entry.owner = sys.intern(entry.owner)
        # For a reader of the file; the order of the lines is what counts here.
        entry.stream_id = ""
        journal.entries.append(entry)
    return journal


__all__ = ["Entry", "Journal", "read_journal"]
