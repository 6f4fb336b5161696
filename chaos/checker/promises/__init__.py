"""The checkers: one per promise, each a pure function of what a run left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from chaos.checker.promises import (
    g01_no_phantom,
    g02_no_loss,
    g03_promote_once,
    g04_cancel_is_final,
    g05_never_early,
    g06_bounded_lateness,
    g07_one_holder,
    g08_fenced,
    g09_ack_is_final,
    g10_retry_bound,
    g11_conservation,
    g12_one_leader,
    g13_idempotent,
    g14_prompt_delivery,
)
from chaos.checker.verdict import Found
from chaos.checker.view import RunView


class Need(Enum):
    """What a checker cannot do without; where it is missing the verdict is UNKNOWN."""

    REPLIES = "the replies to clients"
    JOURNAL = "the surviving journal"
    DRAIN = "the counts after the final drain"


@dataclass(frozen=True, slots=True)
class Checker:
    """One promise's judge.

    Attributes:
        promise: its id in models/promises.py.
        needs: what it cannot do without; the rest it uses where it is there.
        reads_journal: it finds something in a journal without a history.
    """

    promise: str
    check: Callable[[RunView], Found]
    needs: frozenset[Need] = frozenset({Need.REPLIES})
    reads_journal: bool = True


_REPLIES, _JOURNAL, _DRAIN = Need.REPLIES, Need.JOURNAL, Need.DRAIN

CHECKERS: tuple[Checker, ...] = (
    Checker("G1", g01_no_phantom.check, reads_journal=False),
    Checker("G2", g02_no_loss.check, frozenset({_REPLIES, _DRAIN}), reads_journal=False),
    Checker("G3", g03_promote_once.check, frozenset({_JOURNAL})),
    Checker("G4", g04_cancel_is_final.check),
    Checker("G5", g05_never_early.check),
    Checker("G6", g06_bounded_lateness.check),
    Checker("G7", g07_one_holder.check),
    Checker("G8", g08_fenced.check),
    Checker("G9", g09_ack_is_final.check),
    Checker("G10", g10_retry_bound.check),
    Checker("G11", g11_conservation.check, frozenset({_DRAIN}), reads_journal=False),
    Checker("G12", g12_one_leader.check, frozenset({_JOURNAL})),
    Checker("G13", g13_idempotent.check),
    Checker("G14", g14_prompt_delivery.check, frozenset({_REPLIES, _JOURNAL}), reads_journal=False),
)

__all__ = ["CHECKERS", "Checker", "Need"]
