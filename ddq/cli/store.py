"""ddq store: what an operator asks of, or does to, the store itself, beside all servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ddq.cli.configured import configured
from ddq.cli.exits import CommandError, ExitCode, guarded
from ddq.cli.options import Json, Yes
from ddq.cli.output import emit, say, table
from ddq.cli.running import StoreLocation
from ddq.config import Settings, StartupError

if TYPE_CHECKING:
    from ddq.store.open import Store
    from ddq.store.runner import Call

app = typer.Typer(
    help="Look after the store itself: its settings, a detected loss, a clock that jumped.",
    no_args_is_help=True,
)
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", "-t", help="Only this topic; may be given several times."),
]


@asynccontextmanager
async def _opened(url_text: str, settings: Settings) -> AsyncIterator[tuple[Store, Call]]:
    """The store, and a call that waits for no replica: an operator's way out must work when the
    barrier does not."""
    from ddq.store.lifecycle import (  # noqa: PLC0415 - with the rest that is loaded when used
        check_options,
        store_call,
    )
    from ddq.store.open import open_store  # noqa: PLC0415
    from ddq.store.topology import open_topology  # noqa: PLC0415

    try:
        url = check_options(settings, url_text)
    except StartupError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    if url.kind == "embedded":
        raise CommandError(
            "an embedded store belongs to its server: give the socket in its folder, "
            "unix:///FOLDER/valkey.sock, while that runs",
            ExitCode.USAGE,
        )
    store = open_store(open_topology(url), settings)
    try:
        yield store, replace(store_call(store), durable=False)
    finally:
        await store.close()


@app.command()
@configured
def check(settings: Settings, store: StoreLocation, json: Json = False) -> None:
    """Say which settings of the store break what the durability promises, and what to do.

    Give the same --durability, --fsync and --data-nodes as to the servers. Exit status 1 if there
    is something to do.
    """

    async def run() -> bool:
        from ddq.store.lifecycle import examine_store  # noqa: PLC0415 - loaded when used

        async with _opened(store, settings) as (opened, _):
            examination = await examine_store(opened)
        if json:
            emit(
                [
                    {"where": f.where, "found": f.found, "why": f.why, "remedy": f.remedy}
                    for f in examination.findings
                ]
            )
        else:
            for node in examination.unreachable:
                say(f"not looked at: {node}")
            for finding in examination.findings:
                say(str(finding))
            if not examination.findings:
                say("The store is set as its durability needs it.")
        return not examination.findings

    if not guarded(run()):
        raise typer.Exit(ExitCode.FAILED)


@app.command("accept-rollback")
@configured
def accept_rollback(
    settings: Settings, store: StoreLocation, topic: Topics = None, yes: Yes = False
) -> None:
    """Let the store continue after ROLLBACK_DETECTED; the lost writes are not recovered.

    Find out first why it came back without writes that it had confirmed, and bring back a node or
    backup that has them if there is one. Afterwards finished tasks may be delivered again, and
    enqueued ones be missing.
    """
    if not yes:
        typer.confirm("What the store lost will stay lost. Go on?", abort=True, err=True)

    async def run() -> Sequence[str]:
        async with _opened(store, settings) as (opened, call):
            if not topic:
                await opened.recovery_api.accept_rollback_of_registry(call)
            found = await opened.recovery_api.topics(topic or [], call)
            for each in found:
                await opened.recovery_api.accept_rollback(each, call)
            return [each.name for each in found]

    names = guarded(run())
    say(
        f"Accepted for {'these topics' if topic else 'the registry and'}: {', '.join(names) or '-'}"
    )


@app.command("reset-clock")
@configured
def reset_clock(
    settings: Settings, store: StoreLocation, topic: Topics = None, json: Json = False
) -> None:
    """Set the clock marks back, after the store's clock was ahead and is right again.

    Until then its shards answer CLOCK_UNSAFE. Refused while the store's clock and this machine's
    differ by more than --max-clock-skew-ms.
    """

    async def run() -> None:
        async with _opened(store, settings) as (opened, call):
            done = [
                reset
                for each in await opened.recovery_api.topics(topic or [], call)
                for reset in await opened.recovery_api.reset_clock(each, call)
            ]
        if json:
            emit(
                [
                    {"shard": r.shard.tag, "before_ms": r.before_ms, "after_ms": r.after_ms}
                    for r in done
                ]
            )
        else:
            table(
                ["shard", "was ahead by>"],
                [(r.shard.tag, f"{max(0, r.before_ms - r.after_ms)} ms") for r in done],
            )

    guarded(run())


@app.command()
@configured
def upgrade(settings: Settings, store: StoreLocation, yes: Yes = False) -> None:
    """Let the store's tasks take their latest, smaller form, once every process is of this version.

    Schedulers rewrite the tasks that are there in small steps. From then on a server, scheduler or
    `ddq store` of an older version is refused. A repeat changes nothing.
    """
    if not yes:
        typer.confirm(
            "Servers and schedulers of older versions will be refused. Are all of them upgraded?",
            abort=True,
            err=True,
        )

    async def run() -> None:
        async with _opened(store, settings) as (opened, call):
            # Confirmed like any change: an operator may rely on it having been made.
            await opened.recovery_api.upgrade(replace(call, durable=True))

    guarded(run())
    say("Allowed. Schedulers upgrade each shard at their next look, within sweep_interval_ms.")
