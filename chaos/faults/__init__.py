"""What can go wrong, as one catalogue: each kind with its targets, and what must survive it.

A fault is a kind with a target and a strength. It is injected, held, verified to have really
happened, and healed; one that did not happen counts for nothing.
"""

from __future__ import annotations

from chaos.faults.catalogue import KINDS, kind
from chaos.faults.model import (
    DidNotHappenError,
    Evidence,
    Fault,
    FaultContext,
    FaultRow,
    Kind,
    Mode,
    Strength,
    Target,
)

__all__ = [
    "KINDS",
    "DidNotHappenError",
    "Evidence",
    "Fault",
    "FaultContext",
    "FaultRow",
    "Kind",
    "Mode",
    "Strength",
    "Target",
    "kind",
]
