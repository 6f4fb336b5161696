"""In which kind of stories a planted bug is looked for."""

from __future__ import annotations

from tests.bugs.registry import Bug
from tests.stateful.play import Plot

ONE_NODE = Plot()
ROLLBACK = Plot("all", failovers_max_count=1, rollback=True)


def plot_of(bug: Bug, level: int) -> Plot:
    """The kind of stories in which a bug is looked for; see Bug.levels."""
    if level == 3:
        return ONE_NODE
    return ROLLBACK if level == 5 else Plot(bug.durability, failovers_max_count=2)
