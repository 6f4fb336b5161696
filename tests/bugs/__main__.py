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
from tests.bugs.plots import ONE_NODE, ROLLBACK, plot_of
from tests.bugs.registry import BUGS, Bug, texts_of
from tests.stateful.directed import told_by_a_deposed_master
from tests.stateful.hunt import Catch, hunt_steps, hunt_stories
from tests.stateful.play import Plot


def catch(socket: str, bug: Bug, examples: int, *, shrink: bool) -> Catch | None:
    """Plants a bug and looks for it, level by level."""
    texts = texts_of(bug)
    with bug.patch() if bug.patch else contextlib.nullcontext():
        for level in bug.levels:
            if level == 6:
                found = _tell(socket, bug)
            elif level == 2:
                found = hunt_steps(socket, texts, examples, shrink=shrink)
            else:
                found = hunt_stories(
                    socket, texts, plot_of(bug, level), examples, shrink=shrink, wanted=bug.breaks
                )
            if found is not None:
                return found
    return None


def _tell(socket: str, bug: Bug) -> Catch | None:
    """The story that is told by name; a "not found" in it is a lie."""
    started_s = time.monotonic()
    (promise,) = bug.breaks
    if bug.directed is not None:
        found = bug.directed(socket)
        return Catch(promise, 3, 1, time.monotonic() - started_s, found) if found else None
    assert bug.ask is not None
    event = told_by_a_deposed_master(socket, bug.ask)
    if event.error is None or event.error.reason != "TASK_NOT_FOUND":
        return None
    story = f"{promise}: a deposed master said that the task does not exist: {event.error}"
    return Catch(promise, 3, 1, time.monotonic() - started_s, story)


def main() -> int:
    """Runs the registry; see the module."""
    parser = argparse.ArgumentParser(prog="make bugs", description=__doc__)
    parser.add_argument("--examples", type=int, default=5_000, help="tries a bug and level")
    parser.add_argument("--quick", action="store_true", help="do not shorten the stories")
    parser.add_argument("--only", default="", help="bugs whose name contains this")
    parser.add_argument("--stories", action="store_true", help="print every story")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    console = Console()
    table = Table("bug", "promise", "level", "examples", "seconds", title="planted bugs")
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
                        console.print(found.story, markup=False)
                    continue
                caught.append(found)
                row = (found.promise, str(found.level), str(found.examples))
                table.add_row(bug.name, *row, f"{found.seconds:.1f}")
                console.print(f"{bug.name}: caught by {row[0]} at level {row[1]} after {row[2]}")
                if options.stories:
                    console.print(found.story, markup=False)
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
        console.print(f"[red]the untouched store is accused:[/]\n{accused.story}")
    return 1 if survived or accused else 0


def _accuse(socket: str) -> Catch | None:
    """The same on the store as it is; it must not be accused."""
    return (
        hunt_steps(socket, None, 200, shrink=True)
        or hunt_stories(socket, None, ONE_NODE, 200, shrink=True)
        or hunt_stories(socket, None, Plot("all", failovers_max_count=2), 200, shrink=True)
        or hunt_stories(socket, None, Plot("quorum", failovers_max_count=2), 200, shrink=True)
        or hunt_stories(socket, None, ROLLBACK, 200, shrink=True)
    )


if __name__ == "__main__":
    sys.exit(main())
