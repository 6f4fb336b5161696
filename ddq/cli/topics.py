"""ddq topics, and ddq stats."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from ddq.cli.connect import connected
from ddq.cli.durations import attempts_text
from ddq.cli.exits import CommandError, ExitCode, UsageError, guarded
from ddq.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT,
    Address,
    Json,
    MaxAttempts,
    Timeout,
    Yes,
    span_option,
)
from ddq.cli.output import emit, facts, plain, say, table, tasks_text, when
from ddq.client import (
    Durability,
    RetryPolicy,
    TaskCounts,
    Topic,
    TopicSettings,
    TopicStats,
)
from ddq.durations import span_text

app = typer.Typer(
    help="Make, look at, change, pause, empty and delete topics.", no_args_is_help=False
)

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]


class DurabilityChoice(StrEnum):
    """How far a write has travelled when its reply leaves."""

    FAST = "fast"
    QUORUM = "quorum"
    ALL = "all"


MaxTasks = Annotated[
    int | None, typer.Option(min=0, help="Tasks held at once; 0: no bound but the store's memory.")
]
Lease = Annotated[
    timedelta | None, span_option("--lease", help="For a retrieve that names no lease.")
]
Retention = Annotated[
    timedelta | None,
    span_option("--tombstone-retention", help="How long a finished id is remembered."),
]
DurabilityFlag = Annotated[
    DurabilityChoice | None, typer.Option(help="How far a write has travelled at its reply.")
]
Journal = Annotated[
    bool | None, typer.Option("--journal/--no-journal", help="Write a journal of transitions.")
]
JournalMax = Annotated[
    int | None, typer.Option("--journal-max-entries", min=0, help="About how many a shard keeps.")
]
MaxRun = Annotated[
    timedelta | None,
    span_option("--max-run", help="How long workers let a handler run; 0s: no bound."),
]
InitialBackoff = Annotated[
    timedelta | None, span_option("--initial-backoff", help="Wait after the first failure.")
]
MaxBackoff = Annotated[
    timedelta | None, span_option("--max-backoff", help="Longest wait after a failure.")
]
Multiplier = Annotated[float | None, typer.Option(help="Factor from one wait to the next.")]
Jitter = Annotated[float | None, typer.Option(help="Random part on top of a wait, 0 to 1.")]


def _settings(
    max_tasks: int | None,
    lease: timedelta | None,
    tombstone_retention: timedelta | None,
    durability: DurabilityChoice | None,
    journal: bool | None,
    journal_max_entries: int | None,
    max_run: timedelta | None,
    policy: RetryPolicy,
) -> TopicSettings:
    return TopicSettings(
        default_retry_policy=policy if policy != RetryPolicy() else None,
        default_lease_duration=lease,
        max_tasks=max_tasks,
        tombstone_retention=tombstone_retention,
        durability=Durability[durability.name] if durability is not None else None,
        journal=journal,
        journal_max_entries=journal_max_entries,
        max_run=max_run,
    )


@app.command("create")
def create(
    name: Name,
    shards: Annotated[int, typer.Option(min=1, help="1 to 64; fixed from then on.")] = 1,
    max_tasks: MaxTasks = None,
    lease: Lease = None,
    tombstone_retention: Retention = None,
    durability: DurabilityFlag = None,
    journal: Journal = None,
    journal_max_entries: JournalMax = None,
    max_run: MaxRun = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Make a topic with settings of its own. The first enqueue makes one, too."""
    settings = _settings(
        max_tasks,
        lease,
        tombstone_retention,
        durability,
        journal,
        journal_max_entries,
        max_run,
        RetryPolicy(max_attempts, initial_backoff, max_backoff, multiplier, jitter),
    )

    async def run() -> None:
        async with connected(address, timeout) as client:
            topic, created = await client.create_topic(name, shards=shards, settings=settings)
        if as_json:
            emit({"created": created, **topic_document(topic)})
        else:
            say(f"created {name}" if created else f"{name} was there already, with these settings")

    guarded(run())


@app.command("update")
def update(
    name: Name,
    max_tasks: MaxTasks = None,
    lease: Lease = None,
    tombstone_retention: Retention = None,
    durability: DurabilityFlag = None,
    journal: Journal = None,
    journal_max_entries: JournalMax = None,
    max_run: MaxRun = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
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
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Change those settings of a topic that are given."""
    settings = _settings(
        max_tasks,
        lease,
        tombstone_retention,
        durability,
        journal,
        journal_max_entries,
        max_run,
        RetryPolicy(max_attempts, initial_backoff, max_backoff, multiplier, jitter),
    )
    if settings == TopicSettings() and not reset:
        raise UsageError("give a setting to change")

    async def run() -> None:
        async with connected(address, timeout) as client:
            topic = await client.update_topic(
                name, settings, reset=reset or (), expected_revision=expected_revision
            )
        if as_json:
            emit(topic_document(topic))
        else:
            _show(topic)

    guarded(run())


@app.command("list")
def list_topics(
    as_json: Json = False, address: Address = DEFAULT_ADDRESS, timeout: Timeout = DEFAULT_TIMEOUT
) -> None:
    """List all topics by name."""

    async def run() -> None:
        async with connected(address, timeout) as client:
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

    guarded(run())


@app.command("get")
def get(
    name: Name,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Show a topic and its settings."""

    async def run() -> None:
        async with connected(address, timeout) as client:
            topic = await client.get_topic(name)
        if as_json:
            emit(topic_document(topic))
        else:
            _show(topic)

    guarded(run())


@app.command("pause")
def pause(
    name: Name,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Stop promotion and delivery; all else goes on."""

    async def run() -> None:
        async with connected(address, timeout) as client:
            topic = await client.pause_topic(name)
        emit(topic_document(topic)) if as_json else say(f"paused {name}")

    guarded(run())


@app.command("resume")
def resume(
    name: Name,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """End a pause."""

    async def run() -> None:
        async with connected(address, timeout) as client:
            topic = await client.resume_topic(name)
        emit(topic_document(topic)) if as_json else say(f"resumed {name}")

    guarded(run())


@app.command("purge")
def purge(
    name: Name,
    yes: Yes = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """End every task that the topic holds now."""

    async def run() -> None:
        async with connected(address, timeout) as client:
            held = _held((await client.stats(name)).counts)
            sure(f"End {tasks_text(held)} in {name}?", yes=yes)
            purged = await client.purge_topic(name)
        emit({"topic": name, "purged": purged}) if as_json else say(
            f"purged {tasks_text(purged)} in {name}"
        )

    guarded(run())


@app.command("delete")
def delete(
    name: Name,
    yes: Yes = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """End every task of a topic and forget it."""

    async def run() -> None:
        async with connected(address, timeout) as client:
            held = _held((await client.stats(name)).counts)
            sure(f"Delete {name} with {tasks_text(held)}?", yes=yes)
            purged = await client.delete_topic(name)
        emit({"topic": name, "purged": purged}) if as_json else say(
            f"deleted {name} with {tasks_text(purged)}"
        )

    guarded(run())


def stats(
    topic: Annotated[
        str | None, typer.Argument(help="The topic; none: all.", show_default=False)
    ] = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Show how many tasks there are in each state, and since the topic exists.

    enqueued = scheduled + ready + leased + dead + succeeded + cancelled + purged + set aside, at
    every moment.
    """

    async def run() -> None:
        async with connected(address, timeout) as client:
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

    guarded(run())


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
        ["topic", *(f"{column.replace('_', ' ')}>" for column in columns), "next due"],
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


def sure(question: str, *, yes: bool) -> None:
    """Goes on if --yes was given or a person says so.

    Raises:
        CommandError: nobody said so.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Give --yes.", ExitCode.USAGE)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done", ExitCode.FAILED)


def topic_document(topic: Topic) -> dict[str, Any]:
    """A topic as JSON."""
    return {**plain(topic), "uid": topic.uid.hex()}


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
