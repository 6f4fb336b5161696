"""Mistakes about what a request does, each with the workload that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

from chaos.experiments.mutants.mistakes import Patch, edited
from ddq.store import runner
from ddq.task import Durability, Receipt

MISSED_COUNT = 20
"""Changes before a purge whose tasks it misses."""


def _receipt_that_lies() -> AbstractContextManager[Any]:
    """Every receipt says that all replicas have the write."""

    def of_all(_: Durability, *rest: Any) -> Receipt:
        return Receipt(Durability.ALL, *rest)

    return mock.patch.object(runner, "Receipt", of_all)


EFFECTS: Mapping[str, tuple[str, str, str, str, Patch]] = {
    "repeat-leases-again": (
        "a Retrieve that is repeated leases other tasks",
        "G13",
        "api-killed",
        "bursts",
        partial(edited, "\nif record then\n  local at = 1", "\nif false then\n  local at = 1"),
    ),
    "cancel-forgets-the-index": (
        "a cancelled task stays in the index by which it is promoted, and in its record",
        "G4",
        "api-killed",
        "cancel-race",
        partial(
            edited,
            "  local from = t.cut_from or t.state\n  if INDEX[from]",
            "  local from = t.cut_from or t.state\n"
            "  if op == 'cancel' and from == SCHEDULED then\n"
            "    control.sequence = control.sequence + 1\n"
            "    control.lineage = CALL.lineage\n"
            "    t.revision, t.state, t.updated_ms = control.sequence, to, now\n"
            "    count('scheduled', -1)\n"
            "    count('cancelled', 1)\n"
            "    return journal(op, t, from)\n"
            "  end\n"
            "  if INDEX[from]",
        ),
    ),
    "purge-misses": (
        f"a purge misses the tasks of the last {MISSED_COUNT} changes before it",
        "G4",
        "api-killed",
        "operators",
        partial(
            edited,
            "if walk.cut > control.purge_cut then",
            f"walk.cut = walk.cut - {MISSED_COUNT}\nif walk.cut > control.purge_cut then",
        ),
    ),
    "pause-leaks": (
        "tasks of a topic that is paused are promoted",
        "G5",
        "api-killed",
        "operators",
        partial(
            edited,
            "local moved, late_ms = 0, -1\nif control.paused == 0 then",
            "local moved, late_ms = 0, -1\nif true then",
        ),
    ),
    "extend-is-ignored": (
        "an extended lease ends when it would have without",
        "G7",
        "api-killed",
        "libraries",
        partial(
            edited,
            "transition('extend', t, LEASED, expiry_ms)",
            "transition('extend', t, LEASED, as_ms(get_score(K.leases, t.id)))",
        ),
    ),
    "receipt-lies": (
        "a receipt says that all replicas have a write that a majority has",
        "G2",
        "api-killed",
        "mixed",
        _receipt_that_lies,
    ),
    "end-not-counted": (
        "an acknowledged task is not counted as succeeded",
        "G11",
        "api-killed",
        "mixed",
        partial(
            edited,
            "  count(NAME[to], 1)\n",
            "  if to ~= SUCCEEDED then count(NAME[to], 1) end\n",
        ),
    ),
    "old-epoch-promotes": (
        "a promotion by a scheduler that was deposed is carried out",
        "G12",
        "scheduler-leader-stopped",
        "cancel-race",
        partial(
            edited,
            "if not is_leader(ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])) then\n"
            "  return finish({ 'NOT_LEADER', 0, -1, -1, -1, -1 })",
            "if false then\n  return finish({ 'NOT_LEADER', 0, -1, -1, -1, -1 })",
        ),
    ),
}
"""Name → what it is, the promise that it breaks, the scenario, the workload, and the patch."""

__all__ = ["EFFECTS"]
