"""Tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ddq.cli.exits import one_line
from ddq.client import Task
from ddq.durations import span_text

_PIPED_WIDTH_CHARS = 200
"""A pipe has no width of its own; 80 would cut ids in half."""


def console() -> Console:
    """On stdout as it is now."""
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else _PIPED_WIDTH_CHARS, highlight=False
    )


def say(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(f"{one_line(text)}\n")
    sys.stdout.flush()


def emit(document: Any) -> None:
    """One line of JSON on stdout, in ASCII, so that no locale can spoil it."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> None:
    """A table on stdout; a column whose name ends in ``>`` holds numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.rstrip(">"),
            justify="right" if column.endswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis" if column == "last error" else "fold",
        )
    for row in rows:
        # As Text: brackets in an id are not markup.
        made.add_row(*(Text(one_line(str(cell)) if cell is not None else "") for cell in row))
    console().print(made)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """One fact a line on stdout."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(one_line(str(value))))
    console().print(made)


def plain(value: Any) -> Any:
    """Any value of the client as JSON: times in ISO 8601, spans in seconds, enums by name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            _key(spec.name, found): plain(found)
            for spec in fields(value)
            if not isinstance(found := getattr(value, spec.name), bytes)
        }
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {key: plain(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [plain(found) for found in value]
    return value


def _key(name: str, value: Any) -> str:
    return f"{name}_s" if isinstance(value, timedelta) else name


def payload_fields(payload: bytes | None, *, utf8: bool) -> dict[str, str]:
    """A payload as part of a JSON object: ``payload_base64``, or ``payload`` where it is text."""
    if payload is None:
        return {}
    if utf8:
        try:
            return {"payload": payload.decode()}
        except UnicodeDecodeError:
            pass
    return {"payload_base64": base64.b64encode(payload).decode()}


def task_document(task: Task, *, utf8: bool) -> dict[str, Any]:
    """A task as JSON."""
    document: dict[str, Any] = plain(task)
    document.pop("payload", None)
    return document | payload_fields(task.payload, utf8=utf8)


def when(time: datetime | None) -> str:
    """A time for people, in their zone, with its offset and how far away it is.

    Without the offset it could not be compared with another machine's, and is two moments in the
    hour that the clocks are set back over.
    """
    if time is None:
        return "-"
    away = time - datetime.now(UTC)
    distance = f"in {span_text(away)}" if away > timedelta(0) else f"{span_text(-away)} ago"
    return f"{time.astimezone().isoformat(sep=' ', timespec='seconds')} ({distance})"


def tasks_text(count: int) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count} task" if count == 1 else f"{count} tasks"


def preview(payload: bytes | None, *, limit_chars: int = 60) -> str:
    """The beginning of a payload for people."""
    if payload is None:
        return ""
    text = payload[: 4 * limit_chars].decode(errors="replace")
    return text if len(text) <= limit_chars else f"{text[:limit_chars]}…"
