"""The commands of ddq, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from ddq import __version__
from ddq.cli import (
    config,
    dead,
    demo,
    enqueue,
    node,
    scheduler,
    serve,
    stats,
    store,
    tasks,
    token,
    topics,
    work,
)
from ddq.cli.configured import configured
from ddq.cli.exits import MEANINGS

_EXITS = "Exit status: " + "; ".join(f"{code.value} {text}" for code, text in MEANINGS.items())

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"{_EXITS}.",
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A distributed delay queue: enqueue a task now, a worker receives it when it is due.

    Start with `ddq dev`, or watch `ddq demo`.
    """
    if version:
        typer.echo(f"ddq {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


_SERVER, _TASKS, _OPERATORS = "Server", "Tasks", "Operators"

app.command("dev", rich_help_panel=_SERVER)(serve.dev)
app.command("serve", rich_help_panel=_SERVER)(serve.serve)
app.command("node", rich_help_panel=_SERVER)(configured(node.node, flag="--ddq-config"))
app.command("scheduler", rich_help_panel=_SERVER)(scheduler.scheduler)
app.command("demo", rich_help_panel=_SERVER)(demo.demo)
app.command("enqueue", rich_help_panel=_TASKS)(configured(enqueue.enqueue))
app.command("work", rich_help_panel=_TASKS)(configured(work.work))
app.command("cancel", rich_help_panel=_TASKS)(tasks.cancel)
app.command("reschedule", rich_help_panel=_TASKS)(tasks.reschedule)
app.command("get", rich_help_panel=_TASKS)(tasks.get)
app.command("list", rich_help_panel=_TASKS)(tasks.list_tasks)
app.add_typer(topics.app, name="topics", rich_help_panel=_OPERATORS)
app.add_typer(dead.app, name="dead", rich_help_panel=_OPERATORS)
app.add_typer(token.app, name="token", rich_help_panel=_OPERATORS)
app.add_typer(store.app, name="store", rich_help_panel=_OPERATORS)
app.add_typer(config.app, name="config", rich_help_panel=_OPERATORS)
app.command("stats", rich_help_panel=_OPERATORS)(stats.stats)
