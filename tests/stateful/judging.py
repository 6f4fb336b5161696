"""Judges a simulation by the promises, with the checkers of `make chaos`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chaos.checker.bounds import Bounds
from chaos.checker.judge import Results, judge_history
from chaos.checker.promises import Checker
from chaos.checker.promises.g02_no_loss import served_after_loss
from chaos.checker.verdict import Found
from chaos.history.journal import Journal
from chaos.history.reader import History
from chaos.history.run_folder import Final

BOUNDS = Bounds(clock_error_ms=1, lateness_ms=250, recovery_ms=3_000, takeover_ms=3_000)
"""All clocks of a simulation are one, to the millisecond that the store rounds to."""


STILL_WAITING = "G6 bounded lateness: a task is still waiting long after everything healed"


class PromiseBrokenError(AssertionError):
    """A simulation broke promises; the message is the summary of the first one.

    Attributes:
        summaries: of the first anomaly of each broken promise, by the promise's id.
    """

    def __init__(self, summaries: Mapping[str, str]) -> None:
        super().__init__(next(iter(summaries.values())))
        self.summaries = summaries


@dataclass(frozen=True)
class Evidence:
    """What a simulation leaves to be judged; None: there was no drain."""

    history: History
    journal: Journal | None
    final: Final | None


def require_promises(evidence: Evidence) -> None:
    """Raises for the first promise that is broken."""
    results = judge_history(
        evidence.history, evidence.journal, evidence.final, bounds=BOUNDS
    ).results
    _raise_for(results, evidence)


def require_silence(evidence: Evidence) -> None:
    """Raises if a store that lost what it had acknowledged continued as if it had not.

    No other promise is judged: no durability claims to survive such a loss.
    """
    history = evidence.history
    results = judge_history(history, None, None, bounds=BOUNDS, checkers=[_SILENCE]).results
    _raise_for(results, evidence)


_SILENCE = Checker("G2", lambda view: Found(served_after_loss(view)))


def _raise_for(results: Results, evidence: Evidence) -> None:
    """Raises for the first promise that is not VALID.

    Raises:
        PromiseBrokenError: it is broken.
        AssertionError: it could not be judged.
    """
    summaries = {
        promise.id: promise.anomalies[0]["summary"]
        for promise in results.promises
        if promise.anomalies
    }
    if evidence.final is not None and not evidence.final.drained:
        # A lease that expires and is never ended, for example: no entry of the journal shows it.
        summaries.setdefault("G6", STILL_WAITING)
    if summaries:
        raise PromiseBrokenError(summaries)
    unknown = [
        f"{promise.id}: {why}"
        for promise in results.promises
        # A simulation in which no request is answered at once has nothing that tells when, by the
        # clients' time, a task was ready; test_delivery.py has directed ones in which all is.
        if promise.id != "G14"
        for why in promise.unknown
    ]
    assert not unknown, f"not judged: {unknown}"
