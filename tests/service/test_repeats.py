"""A Retrieve and its repeat under way at the same time: together they lease what one would."""

from __future__ import annotations

import pytest

from ddq.server.notifier import ReadyNotifier
from ddq.server.round_robin import RoundRobin
from ddq.server.service import QueueService
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.queue import Queue, call


async def test_a_repeat_that_overtakes_its_first_attempt_leases_no_more(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked for an answer before either had one."""
    other = Queue(queue.controlled_store, "other")
    await other.create()
    service = QueueService(queue.store, ReadyNotifier(queue.store.hints))

    async def nothing_yet(shards: object, *_: object) -> object:
        return shards

    monkeypatch.setattr(service._retrieval, "_recall", nothing_yet)
    request = pb.RetrieveRequest(topics=[queue.name, other.name], max_tasks=2, request_id="r")
    await queue.add("a")
    await queue.promote()
    first = await service.retrieve(request, call("r"))
    assert [lease.task.id for lease in first.tasks] == ["a"]
    await other.add("b")
    await other.promote()
    service._retrieval._round_robin = RoundRobin()
    repeat = await service.retrieve(request, call("r"))
    assert repeat.tasks[0].lease_token == first.tasks[0].lease_token
    assert len(repeat.tasks) == 1
