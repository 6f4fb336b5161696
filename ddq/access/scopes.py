"""Scopes: what a caller may do with which topics.

A scope is written PATTERN:ACTION,ACTION. The pattern is a topic's name in which ``*`` stands for
any characters: ``orders.*:produce,consume`` or ``*:read``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ddq.config import LIMITS

EVERY_TOPIC = "*"
_PATTERN = re.compile(r"[A-Za-z0-9._*-]+")
STARS_MAX_COUNT = 3
"""Comparing a name with a pattern takes its length to the power of their number, at worst."""
ALL = "all"
"""Stands for every action."""


class Action(StrEnum):
    """What a scope allows with the topics of its pattern."""

    PRODUCE = "produce"
    CONSUME = "consume"
    READ = "read"
    ADMIN = "admin"


ACTION_DOCS = {
    Action.PRODUCE: "enqueue, cancel and reschedule tasks",
    Action.CONSUME: "take tasks, extend their leases, and end their attempts",
    Action.READ: "look at tasks, dead tasks, topics and statistics",
    Action.ADMIN: "create, change, pause, purge and delete topics; redrive and delete dead tasks",
}


class ScopeError(ValueError):
    """A scope cannot be read; one line says why."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions with the topics of a pattern."""

    pattern: str
    actions: frozenset[Action]

    @classmethod
    def parse(cls, text: str) -> Scope:
        """From PATTERN:ACTION,ACTION.

        Raises:
            ScopeError: it is not that.
        """
        pattern, colon, actions = text.strip().rpartition(":")
        if not colon or not pattern:
            raise ScopeError(f"invalid scope {text!r}; give PATTERN:ACTION, such as orders.*:read")
        if not _PATTERN.fullmatch(pattern) or len(pattern) > LIMITS.topic_name_max_chars:
            raise ScopeError(
                f"invalid scope {text!r}; its pattern is a topic's name, of letters, digits and "
                "'.', '_', '-', in which '*' stands for any characters"
            )
        if pattern.count(EVERY_TOPIC) > STARS_MAX_COUNT:
            raise ScopeError(
                f"invalid scope {text!r}; its pattern has more than {STARS_MAX_COUNT} '*'"
            )
        names = [name.strip() for name in actions.split(",")]
        if ALL in names:
            return cls(pattern, frozenset(Action))
        unknown = [name for name in names if name not in set(Action)]
        if unknown:
            raise ScopeError(
                f"invalid scope {text!r}; unknown action {unknown[0]!r}, known are "
                f"{', '.join(Action)} and {ALL}"
            )
        return cls(pattern, frozenset(Action(name) for name in names))

    def __str__(self) -> str:
        actions = [action for action in Action if action in self.actions]
        return f"{self.pattern}:{ALL if len(actions) == len(Action) else ','.join(actions)}"


class Scopes:
    """Several scopes, compiled: a topic may be used if one of the patterns is for it."""

    def __init__(self, scopes: Iterable[Scope]) -> None:
        self.all = tuple(scopes)
        self._patterns = {action: _compiled(self.all, action) for action in Action}

    def allow(self, action: Action, topics: Sequence[str]) -> bool:
        """Whether the action is allowed with all of the topics."""
        fits = self._patterns[action].fullmatch
        for topic in topics:
            if len(topic) > LIMITS.topic_name_max_chars:
                # No topic has such a name; comparing it would only take time.
                return self.allow_everywhere(action)
            if not fits(topic):
                return False
        return True

    def allow_everywhere(self, action: Action) -> bool:
        """Whether the action is allowed with any topic that there may be."""
        return any(
            action in scope.actions and not scope.pattern.strip(EVERY_TOPIC) for scope in self.all
        )

    def __str__(self) -> str:
        return " ".join(map(str, self.all)) or "none"


def _compiled(scopes: Iterable[Scope], action: Action) -> re.Pattern[str]:
    patterns = [
        re.sub(r"(?:\\\*)+", ".*", re.escape(scope.pattern))
        for scope in scopes
        if action in scope.actions
    ]
    # Without a pattern nothing may fit, the empty name included.
    return re.compile("|".join(f"(?:{each})" for each in patterns) or r"(?!)", re.DOTALL)
