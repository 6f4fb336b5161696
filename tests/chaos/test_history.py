"""A history on disk: what is read back, and what is said of one that is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaos.history.notes import FaultNote
from chaos.history.reader import FOREVER_NS, BadHistoryError, read_history
from chaos.history.writer import HistoryWriter


def write(path: Path, *events: dict[str, Any], tail: str = "") -> Path:
    lines = [json.dumps({"index": i, "time_ns": i * 1000} | e) for i, e in enumerate(events)]
    path.write_text("".join(line + "\n" for line in lines) + tail)
    return path


ENQUEUE = {
    "process": "1", "type": "invoke", "op": "enqueue",
    "request": {"topic": "t", "id": "a", "payload": "p"},
}  # fmt: skip
ENQUEUED = {
    "process": "1", "type": "ok", "op": "enqueue",
    "reply": {"revision": 2, "incarnation": 2, "store_ms": 5},
}  # fmt: skip


def test_a_completion_belongs_to_its_process_and_the_rest_spans_to_the_end(tmp_path: Path) -> None:
    path = write(
        tmp_path / "history.jsonl",
        ENQUEUE,
        ENQUEUE | {"process": "2"},
        ENQUEUE | {"process": "3"},
        {"process": "2", "type": "info", "op": "enqueue", "reply": {"error": "OUTCOME_UNKNOWN"}},
        ENQUEUED,
    )
    one, two, three = read_history(path).ops
    assert (one.outcome, one.begin_ns, one.end_ns, one.reply.incarnation) == ("ok", 0, 4000, 2)
    assert (two.outcome, two.end_ns, two.error) == ("info", FOREVER_NS, "OUTCOME_UNKNOWN")
    assert (three.outcome, three.end_ns, three.end) == ("info", FOREVER_NS, -1)


def test_each_item_of_a_batch_has_its_own_end(tmp_path: Path) -> None:
    item = {"topic": "t", "id": "a", "token": "00"}
    path = write(
        tmp_path / "history.jsonl",
        {"process": "1", "type": "invoke", "op": "ack_batch",
         "request": {"items": [item, item | {"id": "b"}]}},
        {"process": "1", "type": "ok", "op": "ack_batch", "reply": {"items": [
            {"type": "ok", "reply": {"revision": 9}}, {"type": "fail", "error": "LEASE_LOST"}]}},
    )  # fmt: skip
    first, second = read_history(path).ops
    assert (first.op, first.outcome, first.reply.revision) == ("ack", "ok", 9)
    assert (second.request.id, second.outcome, second.error) == ("b", "fail", "LEASE_LOST")


def test_a_cut_off_last_line_is_a_problem_and_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", ENQUEUE, ENQUEUED, tail='{"index":2,"time_')
    history = read_history(path)
    assert len(history.ops) == 1
    assert history.problems == [
        "history.jsonl line 3: the last line is cut off; what followed is unknown"
    ]


def test_an_empty_history_is_a_problem(tmp_path: Path) -> None:
    assert read_history(write(tmp_path / "history.jsonl")).problems


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([ENQUEUE, {"process": "1", "type": "ok", "op": "ack", "reply": {}}], "line 2.*not begin"),
        ([ENQUEUE, ENQUEUE], "line 2.*begins enqueue before it ended"),
        ([ENQUEUE | {"op": "frob"}], "line 1.*no operation 'frob'"),
        ([ENQUEUE | {"request": {"topic": "t"}}], "line 1.*missing required field `id`"),
        ([ENQUEUE, ENQUEUED | {"time_ns": -5}], "line 2.*before it began"),
        ([ENQUEUE, ENQUEUED | {"reply": {"revison": 3}}], "line 2.*revison"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    tmp_path: Path, events: list[dict[str, Any]], says: str
) -> None:
    path = write(tmp_path / "history.jsonl", *events, ENQUEUE)
    with pytest.raises(BadHistoryError, match=says):
        read_history(path)


def test_a_written_history_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        writer.note("nemesis", "fault", FaultNote("kill", "n1", "inject"))
        writer.event("1", "invoke", "get", request={"topic": "t", "id": "a"})
        writer.event("1", "fail", "get", reply={"error": "TASK_NOT_FOUND"})
    history = read_history(path)
    assert not history.problems
    assert (history.notes[0].value.kind, history.notes[0].process) == ("kill", "nemesis")
    assert history.ops[0].error == "TASK_NOT_FOUND"
    assert history.ops[0].index == 1
    assert history.ops[0].end == 2
