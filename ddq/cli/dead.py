"""ddq dead."""

from __future__ import annotations

from typing import Annotated

import typer

from ddq.cli.connect import Connect, Result, on_server
from ddq.cli.exits import UsageError, complain, exit_code, sure
from ddq.cli.options import Json, Utf8, Yes
from ddq.cli.output import emit, plain, say, task_document, tasks_text
from ddq.cli.tasks import Limit, Payloads, Topic, page_size, show_tasks
from ddq.client import Task

app = typer.Typer(help="List, redrive and delete dead tasks.", no_args_is_help=False)


@app.command("list")
@on_server
async def list_dead(
    connect: Connect,
    topic: Topic,
    limit: Limit = 100,
    payloads: Payloads = False,
    as_json: Json = False,
    utf8: Utf8 = False,
) -> None:
    """List dead tasks, latest last."""
    found: list[Task] = []
    async with connect() as client:
        async for task in client.list_dead(
            topic, with_payload=payloads, page_size=page_size(limit)
        ):
            if limit and len(found) == limit:
                complain("there are more; --limit 0 shows all")
                break
            found.append(task)
    if as_json:
        for task in found:
            emit(task_document(task, utf8=utf8))
    else:
        show_tasks(found, payloads=payloads)


@app.command("redrive")
@on_server
async def redrive(
    connect: Connect,
    topic: Topic,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="None, with --all: all.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every task that is dead now.")] = False,
    as_json: Json = False,
) -> None:
    """Give dead tasks a new run of attempts, due now."""
    if bool(ids) == everything:
        raise UsageError("give ids, or --all")
    async with connect() as client:
        result = await client.redrive(topic, ids or None)
    first = None
    for item in result.results:
        if item.error is not None:
            complain(str(item.error))
            first = first or exit_code(item.error)
    if as_json:
        emit({"topic": topic, "redriven": result.count})
    else:
        say(f"redrove {tasks_text(result.count)} in {topic}")
    if first is not None:
        raise typer.Exit(first)


@app.command("delete")
@on_server
async def delete(
    connect: Connect,
    topic: Topic,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task.", show_default=False)],
    expected_revision: Annotated[
        int | None, typer.Option(min=0, help="Only if the task has this revision.")
    ] = None,
    yes: Yes = False,
) -> Result:
    """End a dead task for good."""
    sure(f"Delete {topic}/{task_id} and its payload?", yes=yes)
    async with connect() as client:
        result = await client.delete_dead(topic, task_id, expected_revision=expected_revision)
    return Result({"topic": topic, "id": task_id, **plain(result)}, f"deleted {topic}/{task_id}")
