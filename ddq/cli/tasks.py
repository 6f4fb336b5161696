"""ddq cancel, get, list and reschedule."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from ddq.cli.connect import Connect, Result, on_server
from ddq.cli.durations import attempts_text
from ddq.cli.exits import CommandError, ExitCode, UsageError, complain, exit_code
from ddq.cli.options import At, Delay, Json, Utf8
from ddq.cli.output import emit, facts, plain, preview, say, table, task_document, when
from ddq.client import Client, Task, TaskState

Topic = Annotated[str, typer.Argument(help="The topic.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="The task's id.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")]
Payloads = Annotated[bool, typer.Option("--payloads", help="With their payloads.")]


class State(StrEnum):
    """The states that tasks can be listed by."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    PURGED = "purged"


@on_server
async def cancel(
    connect: Connect,
    topic: Topic,
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The tasks' ids.", show_default=False)
    ],
    revoke_lease: Annotated[
        bool, typer.Option("--revoke-lease", help="Also a task that a worker holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cancel tasks that are scheduled or ready: they are never delivered again.

    Those that cannot be cancelled are named on stderr; the exit status is that of the first.
    """
    async with connect() as client:
        results = await client.cancel_batch(topic, ids, revoke_lease=revoke_lease)
    first = None
    for result in results:
        if result.error is not None:
            complain(str(result.error))
            first = first or exit_code(result.error)
        elif as_json:
            emit({"topic": topic, "id": result.id, **plain(result.unwrap())})
        else:
            again = " (it was already)" if result.unwrap().already_cancelled else ""
            say(f"cancelled {topic}/{result.id}{again}")
    if first is not None:
        raise typer.Exit(first)


@on_server
async def reschedule(
    connect: Connect,
    topic: Topic,
    task_id: Id,
    delay: Delay = None,
    at: At = None,
    expected_revision: Annotated[
        int | None, typer.Option(min=0, help="Only if the task has this revision.")
    ] = None,
) -> Result:
    """Give a scheduled or ready task another due time; without --delay and --at: now."""
    if delay is not None and at is not None:
        raise UsageError("give --delay or --at, not both")
    async with connect() as client:
        result = await client.reschedule(
            topic, task_id, delay=delay, due=at, expected_revision=expected_revision
        )
    return Result(
        {"topic": topic, "id": task_id, **plain(result)},
        f"rescheduled {topic}/{task_id}, due {when(result.due_time)}",
    )


@on_server
async def get(
    connect: Connect,
    topic: Topic,
    task_id: Id,
    raw: Annotated[bool, typer.Option("--raw", help="Only the payload, byte for byte.")] = False,
    as_json: Json = False,
    utf8: Utf8 = False,
) -> None:
    """Show a task."""
    async with connect() as client:
        task = await client.get_task(topic, task_id)
    if raw:
        if task.payload is None:
            raise CommandError(
                f"{topic}/{task_id} is {task.state.name}: its payload is gone",
                ExitCode.NOT_FOUND,
            )
        sys.stdout.buffer.write(task.payload)
        sys.stdout.buffer.flush()
    elif as_json:
        emit(task_document(task, utf8=utf8))
    else:
        _show(task)


def _show(task: Task) -> None:
    headers = ", ".join(f"{key}={value}" for key, value in sorted(task.headers.items()))
    attempts = str(task.attempt)
    if task.retry_policy is not None:
        attempts += f" of {attempts_text(task.retry_policy.max_attempts)}"
    pairs = [
        ("task", f"{task.topic}/{task.id}"),
        ("state", task.state.name),
        ("attempt", attempts + (f", run {task.run}" if task.run > 1 else "")),
        ("snoozes", task.snoozes or ""),
        ("due", when(task.due_time)),
        ("created", when(task.create_time)),
        ("updated", when(task.update_time)),
        ("lease until", when(task.lease_expire_time)),
        ("last error", task.last_error),
        ("headers", headers),
        ("revision", task.revision),
        ("payload", f"{task.payload_size_bytes} bytes: {preview(task.payload)}"),
    ]
    facts(pair for pair in pairs if pair[1] not in {"", "-"})


@on_server
async def list_tasks(
    connect: Connect,
    topic: Topic,
    state: Annotated[
        State, typer.Option("--state", "-s", help="Tasks in this state.")
    ] = State.SCHEDULED,
    limit: Limit = 100,
    payloads: Payloads = False,
    as_json: Json = False,
    utf8: Utf8 = False,
) -> None:
    """List tasks in one state, the next ones first."""
    async with connect() as client:
        rows, more = await _some(
            client, topic, TaskState[state.name], limit, payloads, as_json, utf8
        )
    if not as_json:
        show_tasks(rows, payloads=payloads)
        if more:
            complain("there are more; --limit 0 shows all")


async def _some(
    client: Client,
    topic: str,
    state: TaskState,
    limit: int,
    payloads: bool,
    as_json: bool,
    utf8: bool,
) -> tuple[list[Task], bool]:
    """Up to ``limit`` tasks, and whether there are more. JSON goes out as it comes in."""
    found: list[Task] = []
    count = 0
    async for task in client.list_tasks(
        topic, state, with_payload=payloads, page_size=page_size(limit)
    ):
        if limit and count == limit:
            return found, True
        count += 1
        if as_json:
            emit(task_document(task, utf8=utf8))
        else:
            found.append(task)
    return found, False


def page_size(limit: int) -> int:
    """Tasks per page of a listing: one more than are shown tells whether there are more."""
    return min(limit + 1, 1_000) if limit else 1_000


def show_tasks(tasks: list[Task], *, payloads: bool) -> None:
    """A table of tasks."""
    columns = ["id", "state", "attempt>", "due", "size>", "last error"]
    if payloads:
        columns.append("payload")
    table(
        columns,
        (
            [
                task.id,
                task.state.name,
                task.attempt,
                when(task.due_time),
                task.payload_size_bytes,
                task.last_error[:60],
                *([preview(task.payload)] if payloads else []),
            ]
            for task in tasks
        ),
    )
