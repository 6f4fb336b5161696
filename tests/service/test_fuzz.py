"""`make fuzz` in small: hostile clients against a whole server, and a healthy one beside them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from ddq.v1 import delay_queue_service_pb2 as pb
from tests.fuzz import calls, decoders
from tests.fuzz.run import Report, run
from tests.support import http2

REQUESTS = 3_000


async def test_hostile_clients_do_no_harm(tmp_path: Path) -> None:
    report = await run(tmp_path, REQUESTS, seed=5, connections=6)
    assert report.faults() == []
    assert report.tally.count >= REQUESTS
    assert report.tally.ended["answered"] > REQUESTS / 4
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND TASK_NOT_FOUND"} <= report.codes.keys()
    assert report.healthy["acknowledged"] > 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ended": -1}, "the server ended"),
        ({"log_lines": ["Traceback (most recent call last):"]}, "the log says"),
        ({"codes": {"INTERNAL": 2}}, "2 RPCs ended with INTERNAL"),
        ({"memory_mib": [50.0] * 10 + [200.0] * 4}, "the memory grew from 50 to 200"),
        ({"healthy": {"acknowledged": 3, "missing": ["h-2"]}}, r"missing \['h-2'\]"),
        ({"healthy": {}}, "got nothing done"),
    ],
)
def test_each_fault_is_named(change: dict[str, object], fault: str) -> None:
    report = Report(1, healthy={"acknowledged": 1})
    assert report.faults() == []
    for name, value in change.items():
        setattr(report, name, value)
    with pytest.raises(AssertionError, match=fault):
        assert "; ".join(report.faults()) == ""


def test_decoders_answer_with_documented_errors_only() -> None:
    random = Random(11)
    for _ in range(3_000):
        number = random.randrange(len(calls.METHODS))
        request = calls.request(calls.METHODS[number], random)
        decoders.check(
            bytes([0, number]) + random.choice((request, calls.mutated(request, random)))
        )
        decoders.check(random.randbytes(random.choice((1, 2, 5, 40, 200))))


def test_a_decoder_that_raises_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setattr(decoders, "DECODERS", (broken,))
    with pytest.raises(KeyError):
        decoders.check(b"\0x")


def test_calls_are_drawn_from_the_seed_alone() -> None:
    drawn = [[calls.draw(Random(seed)) for _ in range(50)] for seed in (1, 1, 2)]
    sent = [[(call.headers, call.data) for call in one] for one in drawn]
    assert sent[0] == sent[1] != sent[2]


def test_every_rpc_has_requests_that_can_be_parsed() -> None:
    random = Random(3)
    for method in calls.METHODS:
        message = pb.DESCRIPTOR.pool.FindMessageTypeByName(method.input_type.full_name)
        assert message is method.input_type
        assert len({calls.nearly_valid(method, random) for _ in range(20)}) > 1
    assert http2.frames(http2.settings(_4=1)) == [(http2.SETTINGS, 0, 0, b"\0\x04\0\0\0\x01")]
