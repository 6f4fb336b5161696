"""Mistakes of scripts, server and scheduler that no failover needs to show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest import mock

from ddq.scheduler.shard import Shard
from ddq.scheduler.visit import Visitor
from ddq.server.notifier import ReadyNotifier
from ddq.server.retrieval import Retrieval, Wanted
from ddq.store import scripts
from ddq.store.job_values import Leased
from ddq.task import Topic

Patch = Callable[[], AbstractContextManager[Any]]

STANDBY_LATE_S = 5.0
EMPTY_S = 1.0
EMPTY_EVERY_S = 5.0


def edited(text: str, other: str) -> AbstractContextManager[Any]:
    """Scripts with another text in the place of this one."""
    parse = scripts.parse_script

    def parse_script(name: str, _body: str, parts: Mapping[str, str]) -> scripts.Script:
        changed = {part: source.replace(text, other) for part, source in parts.items()}
        assert any(changed[part] != parts[part] for part in parts), f"{text!r} is in no script"
        return parse(name, changed[name], changed)

    return mock.patch.object(scripts, "parse_script", parse_script)


@contextmanager
def _slow_standby() -> Iterator[None]:
    """A standby that was turned away waits longer than the leadership of the other one runs."""
    acquire = Visitor._acquire  # noqa: SLF001 - this is what is mutated

    async def late(visitor: Visitor, topic: Topic, shard: Shard) -> bool:
        leads = await acquire(visitor, topic, shard)
        if not leads:
            shard.taken_until_s += STANDBY_LATE_S
        return leads

    with mock.patch.object(Visitor, "_acquire", late):
        yield


def _wake_up_dropped() -> AbstractContextManager[Any]:
    """No Retrieve that waits hears of a ready task; the next one that asks finds it."""
    return mock.patch.object(ReadyNotifier, "notify", return_value=None)


def _empty_while_ready() -> AbstractContextManager[Any]:
    """For some seconds every server answers that there is nothing."""
    retrieve = Retrieval.retrieve

    async def empty_at_times(
        retrieval: Retrieval, wanted: Wanted, *args: Any, **kwargs: Any
    ) -> list[Leased]:
        if time.monotonic() % EMPTY_EVERY_S < EMPTY_S:
            await asyncio.sleep(min(wanted.wait_s, EMPTY_S))
            return []
        return await retrieve(retrieval, wanted, *args, **kwargs)

    return mock.patch.object(Retrieval, "retrieve", empty_at_times)


MISTAKES: Mapping[str, tuple[str, frozenset[str], str, Patch]] = {
    "slow-standby": (
        f"a standby takes over {STANDBY_LATE_S:g} s after it could",
        frozenset({"G6"}),
        "scheduler-leader-stopped",
        _slow_standby,
    ),
    "due-later": (
        "a task is due 3 s later than was asked for, and the reply says so",
        frozenset({"G6"}),
        "api-killed",
        partial(edited, "and now + value_ms or", "and now + value_ms + 3000 or"),
    ),
    "due-earlier": (
        "a task is due 100 ms earlier than was asked for, and the reply says so",
        frozenset({"G5"}),
        "api-killed",
        partial(edited, "and now + value_ms or", "and math.max(now, now + value_ms - 100) or"),
    ),
    "ready-is-not-cancelled": (
        "a cancel of a ready task says that it took effect",
        frozenset({"G4"}),
        "scheduler-leader-stopped",
        partial(
            edited,
            "transition('cancel', t, CANCELLED, now)",
            "if t.state ~= READY then transition('cancel', t, CANCELLED, now) end",
        ),
    ),
    "lease-is-shorter": (
        "a lease ends after half of the time that its holder was promised",
        frozenset({"G7"}),
        "api-killed",
        partial(
            edited,
            "transition('lease', t, LEASED, expiry_ms)",
            "transition('lease', t, LEASED, now + math.floor(lease_ms / 2))",
        ),
    ),
    "token-unchecked": (
        "any token acknowledges a task that is leased",
        frozenset({"G8"}),
        "api-killed",
        partial(edited, "#token > 0 and t.token == token and", "#token > 0 and"),
    ),
    "ack-without-effect": (
        "an ack of every eighth revision says that it took effect",
        frozenset({"G9"}),
        "api-killed",
        partial(
            edited,
            "    transition('ack', t, SUCCEEDED, now)\n",
            "    if t.revision % 8 ~= 0 then transition('ack', t, SUCCEEDED, now) end\n",
        ),
    ),
    "attempt-not-counted": (
        "a lease does not count as an attempt",
        frozenset({"G10"}),
        "api-killed",
        partial(edited, "t.attempt = t.attempt + 1", "t.attempt = math.max(t.attempt, 1)"),
    ),
    "promotion-not-counted": (
        "a promotion keeps its number",
        frozenset({"G3"}),
        "api-killed",
        partial(edited, "t.promotion = t.promotion + 1", "t.promotion = 1"),
    ),
    "taken-id": (
        "an enqueue of an id that has finished makes a second task",
        frozenset({"G13"}),
        "api-killed",
        partial(
            edited,
            "elseif t and not replacing then",
            "elseif t and not replacing and t.state < SUCCEEDED then",
        ),
    ),
    "wake-up-dropped": (
        "a Retrieve that waits does not hear of a task that becomes ready",
        frozenset({"G14"}),
        "api-killed",
        _wake_up_dropped,
    ),
    "empty-while-ready": (
        "a Retrieve is answered with nothing while tasks are ready, for 1 s in 5",
        frozenset({"G14"}),
        "api-killed",
        _empty_while_ready,
    ),
    "another-payload": (
        "a lease brings the payload of the task before it in the batch",
        frozenset({"G1"}),
        "api-killed",
        partial(
            edited,
            "results[#results + 1] = { id, t.record, get_field(K.states, id), expiry_ms }",
            "local last = results[#results]\n"
            "      results[#results + 1] = "
            "{ id, last and last[2] or t.record, get_field(K.states, id), expiry_ms }",
        ),
    ),
}
"""Name → what it is, the promises that it breaks, the scenario, and the patch."""
