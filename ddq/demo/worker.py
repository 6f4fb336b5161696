"""One worker process of the demo: ``python -m ddq.demo.worker ADDRESS``.

It reports on stdout, one JSON object a line, and stops when its stdin ends: when the demo says so,
or is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

# Before gRPC is loaded; see ddq.cli.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from ddq.client import Client
from ddq.demo.plan import LEASE, TOPIC
from ddq.worker import Job, Verdict, Worker

CONCURRENCY = 4


def report(event: str, job: Job, **more: Any) -> None:
    """Tells the demo; a single write, so that a kill cuts no line in two."""
    line = json.dumps({"event": event, "id": job.id, "attempt": job.attempt, **more}) + "\n"
    # The demo may be gone already; then the end of stdin ends this process, too.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line.encode())


async def handle(job: Job) -> None:
    """Takes as long as the payload says, and fails as often."""
    task = json.loads(job.payload)
    late_ms = 0.0
    if job.lease.receipt.store_time is not None and job.due_time is not None:
        late_ms = (job.lease.receipt.store_time - job.due_time).total_seconds() * 1_000
    report("start", job, late_ms=late_ms)
    await asyncio.sleep(task["work_s"])
    if job.attempt <= task["fails"]:
        raise RuntimeError(f"attempt {job.attempt} fails, as planned")


async def main(address: str) -> None:
    """Works until stdin ends."""

    def settled(job: Job, verdict: Verdict) -> None:
        report("end", job, verdict=verdict.value)

    # A short time-out: when the demo has ended, its server has too.
    async with Client(address, timeout_s=5.0) as client:
        worker = Worker(
            client, TOPIC, handle, concurrency=CONCURRENCY, lease=LEASE, on_settled=settled
        )
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), worker.stop)
        try:
            await worker.run()
        finally:
            loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
