"""ddq stats."""

from __future__ import annotations

from typing import Annotated

import typer

from ddq.cli.connect import Connect, on_server
from ddq.cli.options import Json
from ddq.cli.output import emit, plain, table, when
from ddq.client import TopicStats


@on_server
async def stats(
    connect: Connect,
    topic: Annotated[
        str | None, typer.Argument(help="The topic; none: all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how many tasks there are in each state, and since the topic exists.

    enqueued = scheduled + ready + leased + dead + succeeded + cancelled + purged + quarantined, at
    every moment.
    """
    async with connect() as client:
        names = (
            [topic]
            if topic is not None
            else [found.name async for found in client.list_topics(page_size=1_000)]
        )
        found = [(name, await client.stats(name)) for name in names]
    if as_json:
        for name, figures in found:
            emit({"topic": name, **plain(figures)})
        return
    _show_stats(found)


_HEADINGS = {"set_aside": "quarantined"}


def _show_stats(found: list[tuple[str, TopicStats]]) -> None:
    columns = (
        "enqueued",
        "scheduled",
        "ready",
        "leased",
        "dead",
        "succeeded",
        "cancelled",
        "purged",
        "set_aside",
    )
    table(
        ["topic", *(f"{_HEADINGS.get(column, column)}>" for column in columns), "next due"],
        (
            [
                name,
                *(getattr(figures.counts, column) for column in columns),
                when(
                    min(
                        (shard.next_due_time for shard in figures.shards if shard.next_due_time),
                        default=None,
                    )
                ),
            ]
            for name, figures in found
        ),
    )
