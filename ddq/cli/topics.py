"""ddq topics."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from ddq.cli.connect import Connect, Result, on_server
from ddq.cli.durations import attempts_text
from ddq.cli.exits import UsageError, sure
from ddq.cli.options import Json, Yes
from ddq.cli.output import emit, facts, plain, table, tasks_text, when
from ddq.cli.topic_settings import with_topic_settings
from ddq.client import RetryPolicy, TaskCounts, Topic, TopicSettings
from ddq.durations import span_text

app = typer.Typer(
    help="Create, show, change, pause, empty and delete topics.", no_args_is_help=False
)

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]


@app.command("create")
@with_topic_settings
@on_server
async def create(
    connect: Connect,
    name: Name,
    settings: TopicSettings,
    shards: Annotated[int, typer.Option(min=1, help="1 to 64; fixed from then on.")] = 1,
) -> Result:
    """Create a topic with settings of its own. The first enqueue creates one, too."""
    async with connect() as client:
        topic, created = await client.create_topic(name, shards=shards, settings=settings)
    return Result(
        {"created": created, **topic_document(topic)},
        f"created {name}" if created else f"{name} was there already, with these settings",
    )


@app.command("update")
@with_topic_settings
@on_server
async def update(
    connect: Connect,
    name: Name,
    settings: TopicSettings,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            "--reset",
            metavar="SETTING",
            help="Back to the default, for example default_retry_policy.jitter; may be repeated.",
        ),
    ] = None,
    expected_revision: Annotated[
        int | None, typer.Option(min=0, help="Only if the topic has this revision.")
    ] = None,
) -> Result:
    """Change those settings of a topic that are given."""
    if settings == TopicSettings() and not reset:
        raise UsageError("give a setting to change")
    async with connect() as client:
        topic = await client.update_topic(
            name, settings, reset=reset or (), expected_revision=expected_revision
        )
    return _topic_result(topic)


@app.command("list")
@on_server
async def list_topics(connect: Connect, as_json: Json = False) -> None:
    """List all topics by name."""
    async with connect() as client:
        topics = [topic async for topic in client.list_topics(page_size=1_000)]
    if as_json:
        for topic in topics:
            emit(topic_document(topic))
        return
    table(
        ["topic", "shards>", "state", "max attempts>", "lease>", "durability", "created"],
        (
            [
                topic.name,
                topic.shards,
                _state(topic),
                attempts_text(_policy(topic).max_attempts),
                _span(topic.settings.default_lease_duration),
                topic.settings.durability.name if topic.settings.durability else "",
                when(topic.create_time),
            ]
            for topic in topics
        ),
    )


@app.command("get")
@on_server
async def get(connect: Connect, name: Name) -> Result:
    """Show a topic and its settings."""
    async with connect() as client:
        return _topic_result(await client.get_topic(name))


@app.command("pause")
@on_server
async def pause(connect: Connect, name: Name) -> Result:
    """Stop promotion and delivery; everything else continues."""
    async with connect() as client:
        topic = await client.pause_topic(name)
    return Result(topic_document(topic), f"paused {name}")


@app.command("resume")
@on_server
async def resume(connect: Connect, name: Name) -> Result:
    """End a pause."""
    async with connect() as client:
        topic = await client.resume_topic(name)
    return Result(topic_document(topic), f"resumed {name}")


@app.command("purge")
@on_server
async def purge(connect: Connect, name: Name, yes: Yes = False) -> Result:
    """End every task that the topic holds now."""
    async with connect() as client:
        held = _held((await client.stats(name)).counts)
        sure(f"End {tasks_text(held)} in {name}?", yes=yes)
        purged = await client.purge_topic(name)
    return Result({"topic": name, "purged": purged}, f"purged {tasks_text(purged)} in {name}")


@app.command("delete")
@on_server
async def delete(connect: Connect, name: Name, yes: Yes = False) -> Result:
    """End every task of a topic and forget it."""
    async with connect() as client:
        held = _held((await client.stats(name)).counts)
        sure(f"Delete {name} with {tasks_text(held)}?", yes=yes)
        purged = await client.delete_topic(name)
    return Result({"topic": name, "purged": purged}, f"deleted {name} with {tasks_text(purged)}")


def topic_document(topic: Topic) -> dict[str, Any]:
    """A topic as JSON."""
    return {**plain(topic), "uid": topic.uid.hex()}


def _topic_result(topic: Topic) -> Result:
    return Result(topic_document(topic), lambda: _show(topic))


def _held(counts: TaskCounts) -> int:
    return counts.scheduled + counts.ready + counts.leased + counts.dead


def _state(topic: Topic) -> str:
    if topic.deleting:
        return "DELETING"
    return "PAUSED" if topic.paused else "ACTIVE"


def _policy(topic: Topic) -> RetryPolicy:
    return topic.settings.default_retry_policy or RetryPolicy()


def _span(span: timedelta | None) -> str:
    return span_text(span) if span is not None else ""


def _show(topic: Topic) -> None:
    settings, policy = topic.settings, _policy(topic)
    facts(
        [
            ("topic", topic.name),
            ("state", _state(topic)),
            ("shards", topic.shards),
            ("max tasks", settings.max_tasks or "no bound"),
            ("max bytes", settings.max_bytes or "no bound"),
            ("lease", _span(settings.default_lease_duration)),
            ("tombstone retention", _span(settings.tombstone_retention)),
            ("durability", settings.durability.name if settings.durability else ""),
            (
                "journal",
                f"about {settings.journal_max_entries} entries" if settings.journal else "off",
            ),
            ("max run", _span(settings.max_run) if settings.max_run else "no bound"),
            ("max attempts", attempts_text(policy.max_attempts)),
            (
                "backoff",
                (
                    f"{_span(policy.initial_backoff)} to {_span(policy.max_backoff)}, "
                    f"times {policy.multiplier}, jitter {policy.jitter}"
                ),
            ),
            ("revision", topic.revision),
            ("created", when(topic.create_time)),
        ]
    )
