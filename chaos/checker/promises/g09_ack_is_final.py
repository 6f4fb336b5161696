"""G9 ack is final: after an acknowledged ack that incarnation is never delivered again."""

from __future__ import annotations

from chaos.checker.cases import Case
from chaos.checker.chain import broken_links
from chaos.checker.order import broken_order
from chaos.checker.verdict import Anomaly, Found
from chaos.checker.view import RunView
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Each acknowledged ack against everything that came after it; one anomaly an incarnation."""
    found = Found(anomalies=[*broken_order(view, "G9"), *broken_links(view, "G9")])
    for case in view.cases:
        acks: dict[int, Op] = {}
        for op in (*case.acks, *case.run_agains):
            delivery = case.tokens.get(op.request.token)
            if op.ok and delivery is not None:
                known = acks.get(delivery.lease.incarnation)
                if known is None or op.end_ns < known.end_ns:
                    acks[delivery.lease.incarnation] = op
        for incarnation, ack in acks.items():
            found.looked_at += 1
            anomaly = _alive(view, case, incarnation, ack)
            if anomaly is not None:
                found.anomalies.append(anomaly)
    return found


def _alive(view: RunView, case: Case, incarnation: int, ack: Op) -> Anomaly | None:
    acked = f"was acked at {view.at(ack)}"
    for delivery in case.deliveries:
        if delivery.lease.incarnation != incarnation:
            continue
        for sighting in delivery.sightings:
            if sighting.begin_ns > ack.end_ns:
                summary = f"{acked}, delivered again at {view.at(sighting)}"
                return view.anomaly("G9", summary, case, ack, sighting)
        other = delivery.lease.token != ack.request.token
        if other and delivery.lease.revision > ack.reply.revision:
            summary = (
                f"{acked} as revision {ack.reply.revision}, delivered as revision "
                f"{delivery.lease.revision} at {view.at(delivery.op)}"
            )
            return view.anomaly("G9", summary, case, ack, delivery.op)
    for look in case.gets:
        later = look.ok and look.begin_ns > ack.end_ns and look.reply.incarnation == incarnation
        if later and look.reply.state != "succeeded":
            summary = f"{acked}, seen {look.reply.state} at {view.at(look)}"
            return view.anomaly("G9", summary, case, ack, look)
    topic = view.final.topics.get(case.topic) if view.final else None
    for state, ids in topic.held.items() if topic else ():
        if ids.get(case.id) == incarnation:
            return view.anomaly("G9", f"{acked}, and is held as {state} at the end", case, ack)
    return None
