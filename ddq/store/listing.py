"""One page of a listing: shard by shard, in the order of each shard's index."""

from __future__ import annotations

import logging

from ddq.config import LIMITS
from ddq.errors import DdqError, StoreMalformed
from ddq.store.ids import unpack_id
from ddq.store.job_values import ENVELOPE_BYTES, Cursor
from ddq.store.records import unpack_task
from ddq.store.runner import Call, text
from ddq.store.shard_scripts import Args, ShardScripts
from ddq.task import Task, TaskState, Topic

log = logging.getLogger(__name__)

LIST_READ_ENOUGH = 2
"""What the script ``list`` says of a page that ended because it had read enough."""
LIST_SCRIPTS_MAX_COUNT = 32
"""Scripts for one page at most; each reads at most about 4 MiB."""


async def list_page(
    scripts: ShardScripts,
    topic: Topic,
    state: TaskState,
    *,
    full: bool,
    limit: int,
    cursor: Cursor,
    call: Call,
) -> tuple[list[Task], Cursor | None]:
    """See JobStore.list_tasks."""
    tasks: list[Task] = []
    size_bytes = scripts_count = 0
    while len(tasks) < limit and cursor.shard < topic.shards:
        scripts_count += 1
        args: Args = [
            int(state),
            int(full),
            limit - len(tasks),
            LIMITS.retrieve_max_bytes - size_bytes,
            ENVELOPE_BYTES,
            cursor.score,
            cursor.id,
        ]
        own = call.half() if tasks else call
        try:
            reply = await scripts.run(topic, cursor.shard, "list", args, own)
        except DdqError:
            if not tasks:
                raise
            break
        (more, score, last_id, results), policies = reply.body
        for task_id, record, state_record, at_ms, record_size_bytes in results:
            name = unpack_id(task_id)
            size_bytes += len(name.encode()) + len(record) + len(state_record) + ENVELOPE_BYTES
            try:
                task = unpack_task(
                    topic.name,
                    name,
                    record,
                    state_record,
                    lease_expiry_ms=at_ms if state is TaskState.LEASED else 0,
                    record_size_bytes=record_size_bytes,
                    policies=policies,
                )
            except StoreMalformed as error:
                # GetTask reports the error for this task; the others are still listed.
                log.error("left out of a listing: %(error)s", {"error": error})  # noqa: TRY400 - no bug of ours
            else:
                tasks.append(task)
        cursor = Cursor(cursor.shard, text(score), last_id) if more else Cursor(cursor.shard + 1)
        if more == LIST_READ_ENOUGH and not full and scripts_count < LIST_SCRIPTS_MAX_COUNT:
            # The tasks are large, and what is listed of them is small.
            continue
        # Finished tasks of all kinds share an index: looking for a rare one among all others
        # would be one call of unbounded work. The page ends short instead.
        if more or (full and results) or size_bytes >= LIMITS.retrieve_max_bytes:
            break
    return tasks, cursor if cursor.shard < topic.shards else None
