"""The log of a process: one event a line, as text or as JSON, by structlog.

Modules log with `logging`, with named arguments: ``log.info("%(node)s answers", {"node": node})``.
The names are fields of the event, beside the request and the trace in which it was logged.
Passwords and tokens are masked, whatever a message has in it.
"""

from __future__ import annotations

import logging
import re
import sys
import uuid
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

from ddq import tracing

MASK = "********"
_SECRETS = (
    # scheme://user:password@host, with or without the user.
    (re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+(?=@)"), rf"\1:{MASK}"),
    (re.compile(r"(?i)\b(bearer) +[^\s\"',;]+"), rf"\1 {MASK}"),
    (re.compile(r"(?i)\b((?:\w*_)?(?:password|token|secret))(=|: ?)[^\s&\"',;]+"), rf"\1\2{MASK}"),
)
_PLAIN = (str, int, float, bool, type(None))


class Request:
    """The request that runs now, for the lines that are logged meanwhile.

    Args:
        method: the RPC.
        message: the request itself; None: a stream of them.
    """

    __slots__ = ("_fields", "_message", "_method")

    def __init__(self, method: str, message: Any = None) -> None:
        self._method = method
        self._message = message
        self._fields: Mapping[str, str] | None = None

    def fields(self) -> Mapping[str, str]:
        """The method, the topic if it has one, and its request_id, or one that is made for it."""
        if self._fields is None:
            request_id = getattr(self._message, "request_id", "") or uuid.uuid4().hex
            topic = getattr(self._message, "topic", "")
            self._fields = {"rpc": self._method, "request_id": request_id} | (
                {"topic": topic} if isinstance(topic, str) and topic else {}
            )
        return self._fields


request: ContextVar[Request | None] = ContextVar("request", default=None)
"""The request that runs now."""


def configure(
    level: str, form: str, *, process: int | None = None, stream: TextIO | None = None
) -> None:
    """Has everything that this process logs written to stderr.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "console" or "json".
        process: the number of this process among those of one parent.
        stream: in place of stderr.
    """
    import structlog  # noqa: PLC0415 - a command that logs nothing need not load it

    def number(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if process is not None:
            event["process"] = process
        return event

    formatter = structlog.stdlib.ProcessorFormatter(
        pass_foreign_args=True,
        foreign_pre_chain=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            number,
            add_fields,
            structlog.processors.format_exc_info,
            mask_secrets,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer() if form == "json" else console_line,
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])


# Processors --------------------------------------------------------------------------------------


def add_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The named arguments of a line, its request and its trace."""
    named = event.pop("positional_args", None)
    found: dict[str, Any] = {}
    if isinstance(named, Mapping):
        found |= {name: _plain(value) for name, value in named.items()}
    running = request.get()
    if running is not None:
        found = {**running.fields(), **found}
    if tracing.current is not None:
        found |= tracing.current.ids()
    for name, value in found.items():
        event.setdefault(name, value)
    return event


def mask_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Passwords in URLs, bearer tokens, and values that are called password, token or secret."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = masked(value)
    return event


def masked(text: str) -> str:
    """A text without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def console_line(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """One line for people; the fields that its text has already are left out."""
    number = f" process {event['process']}" if "process" in event else ""
    shown = " ".join(
        f"{name}={event[name]}"
        for name in ("rpc", "request_id", "trace_id", "span_id")
        if name in event
    )
    where = f"{event['timestamp']} {event['level'].upper()}{number} {event['logger']}"
    line = f"{where}: {event['event']}"
    trace = f"\n{event['exception']}" if event.get("exception") else ""
    return line + (f" [{shown}]" if shown else "") + trace


def _plain(value: Any) -> Any:
    return value if isinstance(value, _PLAIN) else str(value)
