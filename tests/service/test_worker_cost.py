"""What a worker spends on a task, counted and not timed: requests and calls of functions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ddq
from ddq.client import Client, NewTask
from ddq.client.calls import Caller
from ddq.worker import Job, Verdict, Worker
from tests.support.server import RunningServer

TASKS_COUNT = 2_000
CONCURRENCY = 100

REQUESTS_PER_TASK = 0.1
"""A retrieve and an ack for each hundred, and as many again for those that were not full."""
CALLS_PER_TASK = 60
"""Of functions of ddq.worker and ddq.client; 54 when this was written."""

_FOLDERS = tuple(f"{Path(ddq.__file__).parent / name}/" for name in ("worker", "client"))


class Counts:
    """What was counted, of both threads of a worker."""

    def __init__(self) -> None:
        self.requests = 0
        self.calls = 0

    def on_event(self, frame: FrameType, event: str, _: Any) -> None:
        """For setprofile."""
        if event == "call" and frame.f_code.co_filename.startswith(_FOLDERS):
            self.calls += 1


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Counts within the block."""
    counts = Counts()
    attempt = Caller._attempt

    async def counted(self: Any, *arguments: Any) -> Any:
        counts.requests += 1
        return await attempt(self, *arguments)

    before = sys.getprofile()
    with monkeypatch.context() as patch:
        patch.setattr(Caller, "_attempt", counted)
        threading.setprofile(counts.on_event)
        sys.setprofile(counts.on_event)
        try:
            yield counts
        finally:
            sys.setprofile(before)
            threading.setprofile(None)


async def test_a_drain_shares_requests_and_calls_few_functions_for_each_task(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: Job) -> None:
        pass

    async with Client(server.address) as client:
        for _ in range(TASKS_COUNT // 500):
            await client.enqueue_batch("mail", [NewTask(b"x") for _ in range(500)])
        while (await client.stats("mail")).counts.ready < TASKS_COUNT:
            pass
        made = Worker(client, "mail", nothing, concurrency=CONCURRENCY, max_jobs=TASKS_COUNT)
        with counting(monkeypatch) as counts:
            await made.run()

    assert made.stats.verdicts[Verdict.ACKED] == TASKS_COUNT
    assert counts.requests / TASKS_COUNT <= REQUESTS_PER_TASK
    assert counts.calls / TASKS_COUNT <= CALLS_PER_TASK
