"""Options that several commands share, with the bounds of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from chaos.workloads import RETIRED_NAMES, WORKLOADS


def known(kind: str, names: Callable[[], list[str]]) -> Callable[[str], str]:
    """Accepts one of the names, or none."""

    def check(value: str) -> str:
        if value and value not in names():
            raise typer.BadParameter(
                f"no {kind} is called {value!r}; there are {', '.join(names())}"
            )
        return value

    return check


def _mutations() -> list[str]:
    # The mutations import all of ddq, which the other commands do not need.
    from chaos.experiments.mutants.registry import MUTATIONS  # noqa: PLC0415

    return [*MUTATIONS]


Seed = Annotated[int | None, typer.Option(help="What everything random comes from; else any.")]
Duration = Annotated[
    float,
    typer.Option(
        min=0,
        help="Seconds; a scenario is repeated until they have passed. 0: once.",
    ),
]
Rate = Annotated[
    float,
    typer.Option(min=0.1, max=10_000, help="Operations per second that producers start."),
]
DownAfter = Annotated[
    int, typer.Option(min=100, max=600_000, help="Sentinel's down-after-milliseconds.")
]
Steps = Annotated[int, typer.Option(min=0, help="Of each row; 0: as many as the row says.")]
WorkloadName = Annotated[
    str,
    typer.Option(
        "--workload",
        callback=known("workload", lambda: [*WORKLOADS, *RETIRED_NAMES]),
        help="Instead of the scenario's own.",
    ),
]
MutationName = Annotated[
    str,
    typer.Option(
        "--mutation",
        callback=known("mutation", _mutations),
        help="Seed this mutation (see chaos/experiments/mutants).",
    ),
]
