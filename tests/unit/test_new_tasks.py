"""The short path of an enqueue returns what the full path returns, or gives up."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from ddq.config import LIMITS
from ddq.entropy import SystemEntropy
from ddq.server import new_tasks
from ddq.server.new_tasks import TaskReader
from ddq.server.validation import Problems
from ddq.task import NewTask
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

NOW_MS = 1_700_000_000_000
LATEST_S = (NOW_MS + LIMITS.delay_max_ms) // 1_000


class FixedClock:
    def now_ms(self) -> int:
        return NOW_MS


def full(topic: str, item: pb.BatchEnqueueItem) -> tuple[NewTask, int]:
    """What the full path reads, and how many fields it finds out of bounds."""
    problems = Problems()
    reader = TaskReader(FixedClock(), SystemEntropy())
    task = reader._any_task(problems, topic, item, NOW_MS)
    return task, problems._count


def usual(topic: str, item: pb.BatchEnqueueItem) -> NewTask | None:
    return new_tasks._usual_task(topic, item, NOW_MS)


NANOS = [-1_000_000_000, -1, 0, 1, 999_999, 1_000_000, 999_999_999, 1_000_000_000]
DUE_S = [-1, 0, 1, NOW_MS // 1_000, LATEST_S - 1, LATEST_S, LATEST_S + 1]
DELAY_S = [-1, 0, 1, LIMITS.delay_max_ms // 1_000 - 1, LIMITS.delay_max_ms // 1_000]
LONG_ID = "x" * LIMITS.task_id_max_bytes
IDS = ["", "a b", "é", "a\n", "\x7f", LONG_ID, LONG_ID + "x", LONG_ID[1:] + "é"]
LARGE = b"p" * LIMITS.payload_max_bytes

Deviation = Callable[[pb.BatchEnqueueItem], object]
"""Changes one thing about a usual item."""

deviations: st.SearchStrategy[Deviation] = st.one_of(
    st.builds(lambda s, n: lambda i: i.task.due_time.CopyFrom(Timestamp(seconds=s, nanos=n)),
              st.sampled_from(DUE_S), st.sampled_from(NANOS)),
    st.builds(lambda s, n: lambda i: i.task.delay.CopyFrom(Duration(seconds=s, nanos=n)),
              st.sampled_from(DELAY_S), st.sampled_from(NANOS)),
    st.builds(lambda text: lambda i: setattr(i.task, "id", text), st.sampled_from(IDS)),
    st.builds(lambda data: lambda i: setattr(i.task, "payload", data),
              st.sampled_from([LARGE, LARGE + b"p"])),
    st.builds(lambda mode: lambda i: setattr(i, "on_conflict", mode),
              st.sampled_from([1, 2, 3, 4, 5, 9, -1])),
    st.sampled_from([
        lambda i: i.task.headers.update({"k": "v"}),
        lambda i: i.task.retry_policy.SetInParent(),
        lambda i: setattr(i.task.retry_policy, "max_attempts", 3),
        lambda i: setattr(i, "expected_revision", 0),
        lambda i: i.debounce_limit.FromSeconds(1),
    ]),
)  # fmt: skip


def item(**spec: object) -> pb.BatchEnqueueItem:
    return pb.BatchEnqueueItem(task=task_pb2.TaskSpec(**spec))  # type: ignore[arg-type]


@settings(max_examples=500)
@given(st.lists(deviations, max_size=2))
def test_the_short_path_reads_what_the_full_path_reads(changes: list[Deviation]) -> None:
    given_item = item(id="a", payload=b"p")
    for change in changes:
        change(given_item)
    short = usual("mail", given_item)
    if short is not None:
        assert full("mail", given_item) == (short, 0)


def test_usual_tasks_take_the_short_path() -> None:
    # Else the property above would hold of a short path that always gives up.
    for spec in (
        {"id": "a"},
        {"id": "a", "payload": b"p" * LIMITS.payload_max_bytes},
        {"id": "x" * LIMITS.task_id_max_bytes, "delay": Duration(seconds=90)},
        {"id": "a", "due_time": Timestamp(seconds=LATEST_S - 1, nanos=999_999_999)},
        {"id": "a", "due_time": Timestamp()},
    ):
        assert usual("mail", item(**spec)) is not None, spec
