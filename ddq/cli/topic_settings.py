"""The flags of a topic's settings, for the commands that create and change topics."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from ddq.cli.options import (
    InitialBackoff,
    Jitter,
    MaxAttempts,
    MaxBackoff,
    Multiplier,
    span_option,
)
from ddq.client import Durability, RetryPolicy, TopicSettings


class DurabilityChoice(StrEnum):
    """The nodes that have a write before its reply is sent."""

    FAST = "fast"
    QUORUM = "quorum"
    ALL = "all"


def _settings(
    max_tasks: Annotated[
        int | None,
        typer.Option(min=0, help="Tasks held at once; 0: no bound but the store's memory."),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Bytes of payloads and headers held at once, split over shards; 0: no bound.",
        ),
    ] = None,
    lease: Annotated[
        timedelta | None, span_option("--lease", help="For a retrieve that names no lease.")
    ] = None,
    tombstone_retention: Annotated[
        timedelta | None,
        span_option("--tombstone-retention", help="How long a finished id is remembered."),
    ] = None,
    durability: Annotated[
        DurabilityChoice | None,
        typer.Option(help="Which nodes have a write before its reply is sent."),
    ] = None,
    journal: Annotated[
        bool | None, typer.Option("--journal/--no-journal", help="Write a journal of transitions.")
    ] = None,
    journal_max_entries: Annotated[
        int | None,
        typer.Option("--journal-max-entries", min=0, help="About how many a shard keeps."),
    ] = None,
    max_run: Annotated[
        timedelta | None,
        span_option("--max-run", help="How long workers let a handler run; 0s: no bound."),
    ] = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
) -> TopicSettings:
    policy = RetryPolicy(max_attempts, initial_backoff, max_backoff, multiplier, jitter)
    return TopicSettings(
        default_retry_policy=policy if policy != RetryPolicy() else None,
        default_lease_duration=lease,
        max_tasks=max_tasks,
        tombstone_retention=tombstone_retention,
        durability=Durability[durability.name] if durability is not None else None,
        journal=journal,
        journal_max_entries=journal_max_entries,
        max_run=max_run,
        max_bytes=max_bytes,
    )


def with_topic_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with an argument ``settings: TopicSettings`` one flag for each setting."""
    own = inspect.signature(command, eval_str=True)
    flags = inspect.signature(_settings, eval_str=True).parameters

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        settings = _settings(**{name: given.pop(name) for name in flags})
        command(settings=settings, **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        parameters += [*flags.values()] if name == "settings" else [parameter]
    wrapper.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    return wrapper
