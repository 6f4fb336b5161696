"""Plots of a run; the only part that needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.bench.runner import Run
from tests.bench.workloads.registry import WORKLOADS

REMEDY = "no plots: matplotlib is missing; pip install 'ddq[bench]'"


def draw(run: Run, folder: Path) -> str:
    """Writes one PNG per workload: the median of each system, with its spread.

    Returns:
        A line for people: where they are, or what is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return REMEDY
    count = 0
    for name in dict.fromkeys(result.workload for result in run.results):
        key = WORKLOADS[name].figure
        values: dict[str, list[float]] = {}
        for result in run.results:
            if result.workload == name and key in result.figures:
                values.setdefault(result.system, []).append(result.figures[key])
        if not values:
            continue
        figure = Figure(figsize=(7, 0.6 + 0.5 * len(values)), layout="constrained")
        axes = figure.subplots()
        middles = [median(each) for each in values.values()]
        lows = [median(each) - min(each) for each in values.values()]
        highs = [max(each) - median(each) for each in values.values()]
        axes.barh([*values], middles, xerr=[lows, highs], capsize=3)
        axes.invert_yaxis()
        axes.set_xlabel(key)
        axes.set_title(WORKLOADS[name].title)
        figure.savefig(folder / f"{name}.png", dpi=120)
        count += 1
    return f"{count} plots in {folder}"
