"""Every task's replies against the specification: is there an order that explains them all?

What no order explains is a fault, whichever promise it breaks. The operation is named that, with
all that were over before it, no order explains. Like the comparison of replies with the journal,
this counts for tasks of which no promise's own rule has found anything.
"""

from __future__ import annotations

from chaos.checker.cases import Case
from chaos.checker.order import DONE, UNDONE
from chaos.checker.search import Search, TooLargeError, denials
from chaos.checker.verdict import Anomaly
from chaos.checker.view import RunView
from chaos.history.reader import Op


def unexplained(view: RunView, case: Case) -> Anomaly | None:
    """The anomaly of a task that no order explains; None: there is one.

    Raises:
        TooLargeError: not known within the bound.
    """
    denied = denials(case)
    if Search(view, case, denied).explains():
        return None
    op, later = _first_of_no_order(view, case, denied)
    said = f"was answered with {op.error} to {op.op}" if op.error else f"was {DONE[op.op]}"
    summary = f"{said} at {view.at(op)}, which no order of its operations explains"
    return view.anomaly(_promise(view, case, denied, op, later), summary, case, op)


def _spoken(case: Case, denied: list[Op]) -> list[Op]:
    """Operations whose replies state something, in the order in which they were over."""
    deliveries = [delivery.op for delivery in case.deliveries]
    reads = {id(op) for op in case.gets}
    others = [op for op in case.all_ops() if op.ok and op.op != "retrieve" and id(op) not in reads]
    return sorted([*deliveries, *others, *denied], key=lambda op: op.end_ns)


def _first_of_no_order(view: RunView, case: Case, denied: list[Op]) -> tuple[Op, list[Op]]:
    """The first operation that, with all before it, no order explains; and those behind it."""
    spoken = _spoken(case, denied)
    for position, op in enumerate(spoken):
        later = spoken[position + 1 :]
        try:
            if not Search(view, case, denied, optional=later).explains():
                return op, later
        except TooLargeError:
            continue
    return spoken[-1], []


def _promise(view: RunView, case: Case, denied: list[Op], op: Op, later: list[Op]) -> str:
    """The promise that such an operation breaks; of a delivery, by what is wrong about it."""
    if op.error:
        return "G4"
    if op.op != "retrieve":
        return UNDONE[op.op]
    for name, promise in (("attempt", "G10"), ("promotion", "G3"), ("run", "G13")):
        try:
            if Search(view, case, denied, optional=later, ignored={name}).explains():
                return promise
        except TooLargeError:
            continue
    lease = next(each for each in op.reply.leases if each.id == case.id)
    made = {maker.reply.incarnation for maker in case.makers if maker.ok}
    return "G7" if lease.incarnation in made else "G13"


__all__ = ["unexplained"]
