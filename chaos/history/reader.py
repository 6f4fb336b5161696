"""A history: each operation with its client, its times and its outcome; one JSON line per event.

    {"index":7,"time_ns":1204,"process":"3","type":"invoke","op":"ack","request":{...}}
    {"index":9,"time_ns":1391,"process":"3","type":"ok","op":"ack","reply":{...}}

``time_ns`` is the controller's monotonic clock, 0 at the start of the run. A process does one thing
at a time, so a completion belongs to the last invocation of its process:

- ``ok``: it happened, and this is the answer.
- ``fail``: it certainly did not happen, and never will.
- ``info``: the outcome is not known. The operation may take effect at any later moment, so it spans
  to the end of time, and the process continues under a new number. So does an operation that was
  never completed.

Faults, roles and the like are events of type ``info`` without an invocation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from chaos.history.notes import NOTES, RunNote
from chaos.history.operations import (
    BATCHES,
    OPERATIONS,
    Failed,
    Stamp,
    Value,
)

FOREVER_NS = 1 << 62
"""The end of an operation whose end is not known."""

Type = Literal["invoke", "ok", "fail", "info"]
Outcome = Literal["ok", "fail", "info"]
Fate = Literal["", "applied", "absent"]

_NOTHING = msgspec.Raw()


class BadHistoryError(Exception):
    """A file that is not a history; the message names file and line."""


class HistoryEvent(msgspec.Struct, gc=False):
    """One line. What request and reply mean depends on the operation."""

    index: int
    time_ns: int
    process: str
    type: Type
    op: str
    request: msgspec.Raw = _NOTHING
    reply: msgspec.Raw = _NOTHING


class Op(msgspec.Struct, gc=False):
    """An operation from its invocation to its end; each item of a batch is one.

    Attributes:
        index: of the invocation's event.
        end: of the completion's event; -1 if there is none.
        end_ns: FOREVER_NS for ``info``.
        closed_ns: when the caller stopped waiting, also for ``info``.
        reply: of an ``ok``.
        error: reason of a ``fail`` or ``info``.
        fate: of an ``info``, where something later proved it (chaos/checker/resolve.py).
    """

    index: int
    end: int
    process: str
    op: str
    outcome: Outcome
    begin_ns: int
    end_ns: int
    closed_ns: int
    request: Any
    reply: Any = None
    error: str = ""
    fate: Fate = ""

    @property
    def ok(self) -> bool:
        """It happened."""
        return self.outcome == "ok"

    @property
    def may_have_happened(self) -> bool:
        """It happened, or its outcome is unknown and nothing proved that it did not."""
        return self.outcome != "fail" and self.fate != "absent"


class Note(msgspec.Struct, gc=False):
    """An event that is not an operation."""

    index: int
    time_ns: int
    process: str
    op: str
    value: Any


class History(msgspec.Struct):
    """What was read.

    Attributes:
        problems: what makes it less than a whole history, in words; a verdict on it is UNKNOWN
            at best.
    """

    ops: list[Op]
    notes: list[Note]
    problems: list[str]
    events: int = 0
    end_ns: int = 0

    @property
    def run(self) -> RunNote:
        """What the run said of itself."""
        return next((note.value for note in self.notes if note.op == "run"), RunNote())


class _Item(Value):
    """One result of a batch."""

    type: Outcome
    reply: msgspec.Raw = _NOTHING
    error: str = ""
    message: str = ""


class _BatchRequest(Value):
    items: list[msgspec.Raw]


class _BatchReply(Value):
    items: list[_Item]


_EVENT = msgspec.json.Decoder(HistoryEvent)
_FAILED = msgspec.json.Decoder(Failed)
_BATCH_REQUEST = msgspec.json.Decoder(_BatchRequest)
_BATCH_REPLY = msgspec.json.Decoder(_BatchReply)
_REQUEST = {name: msgspec.json.Decoder(pair[0]) for name, pair in OPERATIONS.items()}
_REPLY = {name: msgspec.json.Decoder(pair[1]) for name, pair in OPERATIONS.items()}
_NOTE = {name: msgspec.json.Decoder(kind) for name, kind in NOTES.items()}


def lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Line number, line, and whether it is whole: the last one may have been cut off.

    Raises:
        BadHistoryError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line, line.endswith(b"\n")
    except OSError as error:
        raise BadHistoryError(f"{path}: {error.strerror}") from None


def read_history(path: Path) -> History:
    """Reads a history line by line and pairs invocations with completions.

    Raises:
        BadHistoryError: a line that is not an event, or does not follow from those before it.
    """
    history = History([], [], [])
    open_ops: dict[str, Op | list[Op]] = {}
    for number, line, whole in lines(path):
        try:
            event = _EVENT.decode(line)
            history.events += 1
            history.end_ns = max(history.end_ns, event.time_ns)
            _take(history, open_ops, event)
        except (msgspec.DecodeError, BadHistoryError) as error:
            if not whole:
                history.problems.append(
                    f"{path.name} line {number}: the last line is cut off; what followed is unknown"
                )
                break
            raise BadHistoryError(f"{path.name} line {number}: {error}") from None
    # What was never completed stays as it began: info, to the end of time.
    if not history.ops:
        history.problems.append(f"{path.name}: no operation is in it")
    return history


def _take(history: History, open_ops: dict[str, Op | list[Op]], event: HistoryEvent) -> None:
    """One event: begins an operation, ends one, or is a note."""
    note = _NOTE.get(event.op)
    if note is not None:
        history.notes.append(
            Note(event.index, event.time_ns, event.process, event.op, note.decode(event.reply))
        )
        return
    process = sys.intern(event.process)
    if event.type == "invoke":
        if process in open_ops:
            raise BadHistoryError(f"process {process} begins {event.op} before it ended the last")
        open_ops[process] = _begin(history, event, process)
        return
    begun = open_ops.pop(process, None)
    name = begun[0].op + "_batch" if isinstance(begun, list) and begun else None
    name = begun.op if isinstance(begun, Op) else name
    if begun is None or (name is not None and name != event.op):
        raise BadHistoryError(f"process {process} ends {event.op}, which it did not begin")
    if isinstance(begun, list):
        _end_batch(begun, event)
        return
    reply = _REPLY[begun.op].decode(event.reply) if event.type == "ok" else None
    error = "" if event.type == "ok" else _FAILED.decode(event.reply).error
    _end(begun, event, event.type, reply, error)


def _begin(history: History, event: HistoryEvent, process: str) -> Op | list[Op]:
    name = event.op
    if name in _REQUEST:
        op = _open(event, process, sys.intern(name), _REQUEST[name].decode(event.request))
        history.ops.append(op)
        return op
    single = sys.intern(name.removesuffix("_batch"))
    if single == name or single not in BATCHES:
        raise BadHistoryError(f"there is no operation {name!r}")
    decode = _REQUEST[single].decode
    ops = [
        _open(event, process, single, decode(item))
        for item in _BATCH_REQUEST.decode(event.request).items
    ]
    history.ops += ops
    return ops


def _open(event: HistoryEvent, process: str, name: str, request: Any) -> Op:
    # A task is named by each operation on it: one copy of the name is enough.
    if name == "retrieve":
        request.topics = [sys.intern(topic) for topic in request.topics]
    else:
        request.topic = sys.intern(request.topic)
        if hasattr(request, "id"):
            request.id = sys.intern(request.id)
        if hasattr(request, "token"):
            request.token = sys.intern(request.token)
    return Op(
        event.index, -1, process, name, "info", event.time_ns, FOREVER_NS, FOREVER_NS, request
    )


def _end(op: Op, event: HistoryEvent, outcome: Type, reply: Any, error: str) -> None:
    if event.time_ns < op.begin_ns:
        raise BadHistoryError(f"process {op.process} ends {op.op} before it began")
    assert outcome != "invoke"
    op.outcome = outcome
    op.end = event.index
    op.closed_ns = event.time_ns
    op.reply = reply
    op.error = sys.intern(error)
    if outcome != "info":
        op.end_ns = event.time_ns
    if isinstance(reply, Stamp):
        reply.lineage = sys.intern(reply.lineage)
    elif op.op == "retrieve" and reply is not None:
        for lease in reply.leases:
            lease.lineage = sys.intern(lease.lineage)
            lease.topic = sys.intern(lease.topic)
            lease.id = sys.intern(lease.id)
            lease.token = sys.intern(lease.token)


def _end_batch(ops: list[Op], event: HistoryEvent) -> None:
    if event.type != "ok":
        error = _FAILED.decode(event.reply).error
        for op in ops:
            _end(op, event, event.type, None, error)
        return
    results = _BATCH_REPLY.decode(event.reply).items
    if len(results) != len(ops):
        raise BadHistoryError(f"{len(results)} results for a batch of {len(ops)}")
    for op, result in zip(ops, results, strict=True):
        reply = _REPLY[op.op].decode(result.reply) if result.type == "ok" else None
        _end(op, event, result.type, reply, result.error)


__all__ = [
    "FOREVER_NS",
    "BadHistoryError",
    "History",
    "HistoryEvent",
    "Note",
    "Op",
    "lines",
    "read_history",
]
