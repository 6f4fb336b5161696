"""The recorder against a real server: what is asked and answered is what is written down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaos.history import convert
from chaos.history.reader import read_history
from chaos.history.recorder import Recorder
from chaos.history.streams import RecordedStreams
from chaos.history.writer import HistoryWriter
from ddq.client import Client, LeaseRef, NewTask
from ddq.errors import LeaseLost, OutcomeUnknown, TaskNotFound, TransportError
from ddq.v1 import task_pb2
from tests.client.queue import lease
from tests.client.streams import FakeSource, leased
from tests.support.server import RunningServer

SECOND = timedelta(seconds=1)


async def test_every_operation_is_written_down_as_it_was(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        async with Client(server.address) as client:
            await client.create_topic("t")
            one = Recorder(writer, client, "1")
            await one.enqueue_task("t", NewTask(b"x" * 100, "a"))
            results = await one.enqueue_batch("t", [NewTask(b"b", "b"), NewTask(b"c", "a")])
            assert results[1].error is not None
            await one.reschedule("t", "b", delay=60 * SECOND)
            (lease,) = await one.retrieve("t", wait=10 * SECOND, lease=5 * SECOND, request_id="r1")
            await one.retrieve("t", request_id="r1")
            await one.extend(lease, 20 * SECOND)
            await one.release(lease)
            (lease,) = await one.retrieve("t", wait=10 * SECOND)
            await one.nack(lease, delay=0 * SECOND)
            (lease,) = await one.retrieve("t", wait=10 * SECOND)
            await one.ack_batch([lease])
            with pytest.raises(LeaseLost):
                await one.nack(lease)
            with pytest.raises(TaskNotFound):
                await one.get_task("t", "none")
            await one.cancel("t", "b")
            await one.get_task("t", "b")
            await one.stats("t")
            assert one.process == "1", "all of it was certain"

    history = read_history(path)
    assert not history.problems
    ops = history.ops
    assert [op.op for op in ops] == [
        "enqueue", "enqueue", "enqueue", "reschedule", "retrieve", "retrieve", "extend", "release",
        "retrieve", "nack", "retrieve", "ack", "nack", "get", "cancel", "get", "stats",
    ]  # fmt: skip
    assert ops[0].request.payload.startswith("sha256:")
    assert ops[0].request.payload.endswith(":100")
    assert ops[2].error == "TASK_ID_CONFLICT"
    assert ops[2].outcome == "fail"
    (first,), (again,) = ops[4].reply.leases, ops[5].reply.leases
    assert first.token == again.token
    assert first.payload == ops[0].request.payload
    assert first.incarnation == ops[0].reply.incarnation
    assert first.expire_ms - first.store_ms == ops[4].request.lease_ms == 5000
    assert first.policy is not None
    assert first.policy.max_attempts
    assert ops[4].request.request_id == "r1"
    assert ops[8].request.request_id, "one that the caller does not give is recorded too"
    assert ops[6].reply.expire_ms > first.expire_ms
    assert [ops[i].reply.leases[0].attempt for i in (4, 8, 10)] == [1, 1, 2]
    assert (ops[12].outcome, ops[12].error) == ("fail", "LEASE_LOST")
    assert ops[15].reply.state == "cancelled"
    assert not ops[14].reply.already
    assert ops[16].reply.shards[0].accounted == ops[16].reply.shards[0].enqueued == 2


async def test_an_unknown_outcome_makes_a_new_process(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        async with Client(server.address) as client:
            await client.create_topic("t")
            one = Recorder(writer, client, "7")
            waiting = asyncio.create_task(one.retrieve("t", wait=30 * SECOND))
            while writer.events < 1:  # noqa: ASYNC110 - the writer has no event to wait for
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert one.process == "7.1"
        with pytest.raises(OutcomeUnknown):
            await Recorder(writer, _Deaf(), "8").ack(LeaseRef("t", "a", b"1"))  # type: ignore[arg-type]
    first, second = read_history(path).ops
    assert (first.process, first.outcome, first.error) == ("7", "info", "CUT_OFF")
    assert (second.process, second.outcome, second.error) == ("8", "info", "OUTCOME_UNKNOWN")


async def test_each_reply_of_a_stream_is_a_retrieve_and_the_rest_has_not_happened(
    server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        async with Client(server.address) as client:
            await client.create_topic("t")
            streams = RecordedStreams(writer, client, "w1")
            async with streams.open(["t"], max_tasks=4, lease=5 * SECOND) as stream:
                stream.add_credit(3)
                leases = []
                for task_id in ("a", "b"):
                    await client.enqueue("t", task_id=task_id)
                    leases += await stream.read()
                stream.add_credit(2)
                await client.enqueue("t", task_id="c")
                leases += await stream.read()
            assert streams.unknowns == 0

    ops = read_history(path).ops
    assert {op.op for op in ops} == {"retrieve"}
    assert len({op.process for op in ops}) == 3, "as many at a time as there is credit"
    stem = ops[0].request.request_id.partition("/")[0]
    numbers = [int(op.request.request_id.removeprefix(f"{stem}/")) for op in ops]
    assert numbers == list(range(1, len(ops) + 1))
    done = [op for op in ops if op.ok]
    assert [lease.id for op in done for lease in op.reply.leases] == ["a", "b", "c"]
    assert [lease.token for op in done for lease in op.reply.leases] == [
        lease.token.hex() for lease in leases
    ]
    assert (ops[0].request.lease_ms, ops[0].request.max_tasks) == (5000, 4)
    # The second reply may have been leased as soon as the first one.
    assert done[1].begin_ns < done[0].end_ns
    assert {op.outcome for op in ops[len(done) :]} == {"fail"}
    notes = [note for note in read_history(path).notes if note.op == "credit"]
    assert {note.process for note in notes} == {stem}
    # It had credit until it was closed.
    assert [(note.value.tasks, note.value.spent_by) for note in notes] == [(3, ""), (0, "")]


async def test_a_stream_asks_for_nothing_from_the_reply_that_spends_its_credit(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    source = FakeSource()
    with HistoryWriter(path) as writer:
        streams = RecordedStreams(writer, source, "w1")  # type: ignore[arg-type]
        stream = streams.open(["mail"], max_tasks=2, lease=5 * SECOND)
        stream.add_credit(2)
        call = await source.call()
        for task_id in ("a", "b"):
            reply = leased(task_id)
            reply.task.state = task_pb2.TASK_STATE_LEASED
            call.reply(reply)
            assert [each.id for each in await stream.read()] == [task_id]
        closing = asyncio.ensure_future(stream.close())
        await call.closed.wait()
        call.end()
        assert not await closing

    notes = [note.value for note in read_history(path).notes if note.op == "credit"]
    assert [(note.tasks, note.spent_by) for note in notes] == [(2, ""), (0, f"{call.stem}/2")]


async def test_replies_of_a_call_that_broke_may_have_happened_and_are_asked_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    source = FakeSource()
    with HistoryWriter(path) as writer:
        streams = RecordedStreams(writer, source, "w1")  # type: ignore[arg-type]
        stream = streams.open(["mail"], max_tasks=2, lease=5 * SECOND)
        stream.add_credit(2)
        call = await source.call()
        source.recalled = {f"{call.stem}/1": [lease("a")]}
        call.end(TransportError("UNAVAILABLE: the connection was reset"))
        assert [each.id for each in await stream.read()] == ["a"]
        assert stream.credit == 1
        second = await source.call()
        second.reply(leased("b"), leased("c"))
        with pytest.raises(RuntimeError, match="more than there was credit for"):
            await stream.read()

    first, other, recalled, empty, *_ = read_history(path).ops
    assert [first.outcome, other.outcome, recalled.outcome] == ["info", "info", "ok"]
    assert (first.error, first.request.request_id) == ("CUT_OFF", f"{call.stem}/1")
    assert recalled.request.request_id == f"{call.stem}/1"
    assert (empty.request.request_id, empty.reply.leases) == (f"{call.stem}/2", [])
    assert streams.unknowns == 3, "the second call too: it was cancelled"


def test_times_are_rounded_up_as_the_server_does_it() -> None:
    assert convert.ms(timedelta(microseconds=1_000)) == 1
    assert convert.ms(timedelta(microseconds=1_001)) == 2
    assert convert.ms(datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)) == 1_001


class _Deaf:
    async def ack(self, *_: object, timeout_s: float | None = None) -> None:
        raise OutcomeUnknown("no answer")


def test_a_killed_harness_leaves_what_it_did(tmp_path: Path) -> None:
    """The line is on disk without the writer being closed, and without another event."""
    path = tmp_path / "history.jsonl"
    program = (
        "import sys, pathlib, time; from chaos.history.writer import HistoryWriter\n"
        "w = HistoryWriter(pathlib.Path(sys.argv[1]))\n"
        "w.event('1', 'invoke', 'get', request={'topic': 't', 'id': 'a'})\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)]) as harness:
        try:
            while not (path.exists() and path.stat().st_size):
                assert harness.poll() is None
            harness.kill()
        finally:
            harness.kill()
    assert len(read_history(path).ops) == 1
