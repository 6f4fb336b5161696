"""`make bugs`: plants every bug, looks for it, and prints where it was caught.

Exit code 0: all were caught by a promise that they break, and the untouched store was not
accused; 1: one survived, or the store was accused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ddq.store.embedded import EmbeddedStore
from tests.bugs.registry import BUGS, Bug, Search, texts_of
from tests.bugs.scenarios import ONE_NODE, ROLLBACK, scenario_of
from tests.stateful.directed import ask_a_deposed_master
from tests.stateful.find import Catch, find_by_simulations, find_by_steps
from tests.stateful.simulate import Scenario


def catch(socket: str, bug: Bug, examples: int, *, shrink: bool) -> Catch | None:
    """Plants a bug and looks for it, level by level."""
    texts = texts_of(bug)
    with bug.patch() if bug.patch else contextlib.nullcontext():
        for search in bug.searches:
            if search is Search.DIRECTED:
                found = _run_directed(socket, bug)
            elif search is Search.STEPS:
                found = find_by_steps(socket, texts, examples, shrink=shrink)
            else:
                scenario = scenario_of(bug, search)
                found = find_by_simulations(
                    socket, texts, scenario, examples, shrink=shrink, wanted=bug.breaks
                )
            if found is not None:
                return found
    return None


def _run_directed(socket: str, bug: Bug) -> Catch | None:
    """The directed simulation; a "not found" in it is false."""
    started_s = time.monotonic()
    (promise,) = bug.breaks
    if bug.directed is not None:
        found = bug.directed(socket)
        return Catch(promise, 3, 1, time.monotonic() - started_s, found) if found else None
    assert bug.ask is not None
    exchange = ask_a_deposed_master(socket, bug.ask)
    if exchange.error is None or exchange.error.reason != "TASK_NOT_FOUND":
        return None
    report = f"{promise}: a deposed master replied that the task does not exist: {exchange.error}"
    return Catch(promise, 3, 1, time.monotonic() - started_s, report)


def main() -> int:
    """Runs the registry; see the module."""
    parser = argparse.ArgumentParser(prog="make bugs", description=__doc__)
    parser.add_argument("--examples", type=int, default=5_000, help="tries a bug and level")
    parser.add_argument("--quick", action="store_true", help="do not shorten the counterexamples")
    parser.add_argument("--only", default="", help="bugs whose name contains this")
    parser.add_argument(
        "--logs", "--stories", action="store_true", dest="logs",
        help="print the log of every counterexample (--stories is the old name)",
    )  # fmt: skip
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    console = Console()
    table = Table("bug", "promise", "level", "examples", "seconds", title="seeded mutations")
    caught: list[Catch] = []
    survived: list[str] = []
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder), sync_always=False)
        runner.run(store.start())
        socket = str(store.socket_path)
        try:
            for bug in BUGS:
                if options.only not in bug.name:
                    continue
                found = catch(socket, bug, options.examples, shrink=not options.quick)
                if found is None or found.promise not in bug.breaks:
                    survived.append(bug.name)
                    by = f"[red]{found.promise} only[/]" if found else "[red]SURVIVED[/]"
                    table.add_row(bug.name, by, "", "", "")
                    console.print(f"{bug.name}: {by}")
                    if found:
                        console.print(found.report, markup=False)
                    continue
                caught.append(found)
                row = (found.promise, str(found.level), str(found.examples))
                table.add_row(bug.name, *row, f"{found.seconds:.1f}")
                console.print(f"{bug.name}: caught by {row[0]} at level {row[1]} after {row[2]}")
                if options.logs:
                    console.print(found.report, markup=False)
            accused = None if options.only else _accuse(socket)
        finally:
            runner.run(store.stop())
    console.print(table)
    if caught:
        median = statistics.median(found.examples for found in caught)
        console.print(f"{len(caught)} caught, {median:.0f} examples in the median")
    if survived:
        console.print(f"[red]not caught: {', '.join(survived)}[/]")
    if accused:
        console.print(f"[red]the untouched store is accused:[/]\n{accused.report}")
    return 1 if survived or accused else 0


def _accuse(socket: str) -> Catch | None:
    """The same on the store as it is; it must not be accused."""
    return (
        find_by_steps(socket, None, 200, shrink=True)
        or find_by_simulations(socket, None, ONE_NODE, 200, shrink=True)
        or find_by_simulations(
            socket, None, Scenario("all", failovers_max_count=2), 200, shrink=True
        )
        or find_by_simulations(
            socket, None, Scenario("quorum", failovers_max_count=2), 200, shrink=True
        )
        or find_by_simulations(socket, None, ROLLBACK, 200, shrink=True)
    )


if __name__ == "__main__":
    sys.exit(main())
