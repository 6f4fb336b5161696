"""ddq dead."""

from __future__ import annotations

from typing import Annotated

import typer

from ddq.cli.connect import connected
from ddq.cli.exits import UsageError, complain, exit_code, guarded
from ddq.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT,
    Address,
    Json,
    Timeout,
    Utf8,
    Yes,
)
from ddq.cli.output import emit, plain, say, task_document, tasks_text
from ddq.cli.tasks import Topic, show_tasks
from ddq.cli.topics import sure
from ddq.client import Task

app = typer.Typer(help="Look at dead tasks, try them again, or delete them.", no_args_is_help=False)


@app.command("list")
def list_dead(
    topic: Topic,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")
    ] = 100,
    payloads: Annotated[bool, typer.Option("--payloads", help="With their payloads.")] = False,
    as_json: Json = False,
    utf8: Utf8 = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """List dead tasks, latest last."""

    async def run() -> None:
        found: list[Task] = []
        async with connected(address, timeout) as client:
            async for task in client.list_dead(
                topic, with_payload=payloads, page_size=min(limit + 1, 1_000) if limit else 1_000
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

    guarded(run())


@app.command("redrive")
def redrive(
    topic: Topic,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="None, with --all: all.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every task that is dead now.")] = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Give dead tasks a new run of attempts, due now."""
    if bool(ids) == everything:
        raise UsageError("give ids, or --all")

    async def run() -> None:
        async with connected(address, timeout) as client:
            result = await client.redrive(topic, ids or ())
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

    guarded(run())


@app.command("delete")
def delete(
    topic: Topic,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task.", show_default=False)],
    expected_revision: Annotated[
        int | None, typer.Option(min=0, help="Only if the task has this revision.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """End a dead task for good."""

    async def run() -> None:
        sure(f"Delete {topic}/{task_id} and its payload?", yes=yes)
        async with connected(address, timeout) as client:
            result = await client.delete_dead(topic, task_id, expected_revision=expected_revision)
        if as_json:
            emit({"topic": topic, "id": task_id, **plain(result)})
        else:
            say(f"deleted {topic}/{task_id}")

    guarded(run())
