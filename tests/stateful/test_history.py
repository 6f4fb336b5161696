"""The histories that the checkers of level 4 judge at level 3."""

from __future__ import annotations

import pytest

from chaos.history.notes import RunNote
from chaos.history.reader import FOREVER_NS
from ddq.errors import DdqError, OutcomeUnknown, TaskNotFound
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from models.operations import Policy, State
from models.queue import Shard, Task
from tests.stateful.history import Exchanges, final_of, journal_of, reads_of
from tests.stateful.judging import Evidence, PromiseBrokenError, require_promises

CANCEL = pb.CancelRequest(topic="t", id="x")
ENQUEUE = pb.EnqueueRequest(topic="t", task=task_pb2.TaskSpec(id="x", payload=b"p"))
CREATED = pb.EnqueueResponse(
    result=pb.EnqueueResult(
        id="x", created=True, state=task_pb2.TASK_STATE_SCHEDULED, revision=3, incarnation=3
    )
)
RUN = RunNote(1_000_000)


def exchanged(*exchanges: tuple[str, object, object]) -> Exchanges:
    """One exchange after the other, at one moment of virtual time."""
    made = Exchanges(lambda: 0.5)
    for op, request, outcome in exchanges:
        exchange = made.begin("client", op, request)
        if isinstance(outcome, DdqError):
            exchange.error = outcome
        else:
            exchange.reply = outcome
        made.complete(exchange)
    return made


@pytest.mark.parametrize(
    ("op", "request_", "error", "outcome"),
    [
        ("Cancel", CANCEL, TaskNotFound("no"), "fail"),
        ("Cancel", CANCEL, OutcomeUnknown("perhaps"), "info"),
        # A read has no effect, whatever became of it.
        ("GetTask", pb.GetTaskRequest(topic="t", id="x"), OutcomeUnknown("perhaps"), "fail"),
    ],
)
def test_a_definite_error_ends_an_operation_and_an_unknown_outcome_does_not(
    op: str, request_: object, error: DdqError, outcome: str
) -> None:
    (made,) = exchanged((op, request_, error)).history(RUN).ops
    assert (made.outcome, made.error) == (outcome, error.reason)
    assert (made.end_ns == FOREVER_NS) == (outcome == "info")
    assert made.closed_ns < FOREVER_NS


def test_a_request_without_a_reply_stays_open() -> None:
    made = Exchanges(lambda: 0.0)
    made.begin("client", "Cancel", CANCEL)
    (op,) = made.history(RUN).ops
    assert (op.outcome, op.end, op.end_ns) == ("info", -1, FOREVER_NS)


def test_events_at_one_moment_keep_their_order() -> None:
    first, second = (
        exchanged(("Enqueue", ENQUEUE, CREATED), ("Enqueue", ENQUEUE, CREATED)).history(RUN).ops
    )
    assert first.begin_ns < first.end_ns < second.begin_ns < second.end_ns
    assert first.index < first.end < second.index < second.end


def test_a_task_that_was_lost_is_found_by_the_final_read() -> None:
    """The surviving shard is empty, although the enqueue was acknowledged."""
    history = exchanged(("Enqueue", ENQUEUE, CREATED)).history(RUN)
    (read,) = reads_of("t", Shard(), ["x"], history)
    assert (read.outcome, read.error) == ("fail", "TASK_NOT_FOUND")
    assert read.begin_ns > history.end_ns
    history.ops.append(read)
    evidence = Evidence(history, journal_of("t", []), final_of("t", Shard(), drained=True))
    with pytest.raises(PromiseBrokenError) as broken:
        require_promises(evidence)
    assert "G2" in broken.value.summaries


def test_a_store_that_does_not_come_to_rest_breaks_g6() -> None:
    task = Task("x", b"p", Policy(), State.LEASED, 3, 3, 0, 0, 0)
    shard = Shard(tasks={"x": task}, counts={"enqueued": 1, "leased": 1})
    history = exchanged(("Enqueue", ENQUEUE, CREATED)).history(RUN)
    evidence = Evidence(history, None, final_of("t", shard, drained=False))
    with pytest.raises(PromiseBrokenError, match=r"G6.*still waiting") as broken:
        require_promises(evidence)
    assert broken.value.summaries.keys() == {"G6"}


def test_an_unjudged_history_is_an_error_without_a_promise() -> None:
    task = Task("x", b"p", Policy(), State.SCHEDULED, 3, 3, 9_000_000, 9_000_000, 0)
    shard = Shard(tasks={"x": task}, counts={"enqueued": 1, "scheduled": 1})
    history = exchanged(("Enqueue", ENQUEUE, CREATED)).history(RUN)
    evidence = Evidence(history, None, final_of("t", shard, drained=True))
    with pytest.raises(AssertionError, match=r"not judged.*G3: needs the surviving journal"):
        require_promises(evidence)
