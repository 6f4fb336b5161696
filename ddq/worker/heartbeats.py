"""Keeping one lease alive."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from ddq.client import Client
from ddq.errors import DdqError, LeaseLost, NotFound
from ddq.worker.job import Job

log = logging.getLogger("ddq.worker")


async def keep_alive(client: Client, job: Job, lease: timedelta, margin_s: float) -> None:
    """Extends a lease every third of its duration; returns when it is lost.

    It runs in the worker's own event loop, which no handler can block.

    Args:
        lease: what each heartbeat asks for.
        margin_s: how long before its expiry the lease is taken for lost, in seconds.
    """
    loop = asyncio.get_running_loop()
    lease_s = lease.total_seconds()
    # A third, so that a heartbeat may fail and others still come in time.
    pause_s = lease_s / 3
    while True:
        await asyncio.sleep(max(0.0, min(pause_s, job.deadline_s - loop.time())))
        left_s = job.deadline_s - loop.time()
        if left_s <= 0:
            log.warning("the lease on %s/%s ran out before it was extended", job.topic, job.id)
            return
        asked_s = loop.time()
        try:
            extended = await client.extend(job.lease, lease, timeout_s=min(left_s, lease_s / 3))
        except (LeaseLost, NotFound) as error:
            log.warning("the lease on %s/%s is lost: %s", job.topic, job.id, error)
            return
        except DdqError as error:
            log.warning("heartbeat of %s/%s failed: %s", job.topic, job.id, error)
            pause_s = lease_s / 20
        else:
            pause_s = lease_s / 3
            # From when it was asked, not from when the answer came: the store counted from some
            # moment in between.
            job.prolong(asked_s + extended.remaining.total_seconds() - margin_s)
