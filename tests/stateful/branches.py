"""`make branches`: which branches of the scripts and of the specification levels 2 and 3 visit.

Every `then`, `else` and `do` of the scripts is made to count itself; the specification is watched
line by line. What was never visited is listed with its explanation. Exit code 1: something that
was not visited has none, or an explanation fits nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import logging
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import redis
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from ddq.store.embedded import EmbeddedStore
from ddq.store.scripts import PRELUDE, script_texts
from models import operations as ops
from models import queue
from tests import profiles
from tests.stateful import machine
from tests.stateful.machine import QueueMachine
from tests.stateful.real import RealShard
from tests.stateful.simulate import Scenario, simulate, simulated_scripts

HITS_KEY = "test:hits"
SCENARIOS = (
    Scenario(),
    Scenario("all", failovers_max_count=2),
    Scenario("quorum", failovers_max_count=2),
)
_HIT_LUA = (
    "local HITS = {}\nlocal function HIT(at) if not HITS[at] then HITS[at] = true "
    f"redis.call('HINCRBY', '{HITS_KEY}', at, 1) end end\n"
)
_TOKEN = re.compile(r"(--[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")|\b(then|else|do)\b")


@dataclass(frozen=True, order=True)
class Site:
    """A place that a run may come to.

    Attributes:
        file: "enqueue.lua", "queue.py", or "step" for an operation and its status.
        line: in the file; 0 for a pair.
        text: of the line, or the pair.
    """

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.text}" if self.line else f"{self.file}  {self.text}"


@dataclass(frozen=True)
class Explanation:
    """Why places are not visited: those in ``file`` whose text contains ``text``."""

    file: str
    text: str
    reason: str

    def fits(self, site: Site) -> bool:
        """Whether it explains a place."""
        return site.file == self.file and self.text in site.text


_BY_HAND = "only what was put in by hand: tests/store/test_malformed.py"
_DELETION = "a topic is deleted: tests/store/test_topics.py"
_REGISTRY = "the table of topics has no specification: tests/store/test_topics.py"
_BEHIND = "a caller that is behind: tests/store/test_topics.py"
_BYTES = "more than 4 MiB of records in one call: tests/store/test_bounds.py"

EXPLANATIONS: tuple[Explanation, ...] = (
    *(
        Explanation(f"{script}.lua", "t == false then", _BY_HAND)
        for script in ("delete_dead", "enqueue", "reschedule")
    ),
    *(
        Explanation(f"{script}.lua", "if has_read_enough(", _BYTES)
        for script in ("collect", "list", "promote", "reap", "redrive", "purge", "prelude/walks")
    ),
    *(
        Explanation("prelude/control.lua", text, _BY_HAND)
        for text in (
            "if not ms or ms ~= ms or ms < 0",
            "if ms > MAX_MS",
            "if actual ~= 'none'",
            "if not number or number ~= math.floor(number)",
        )
    ),
    *(
        Explanation("prelude/records.lua", text, _BY_HAND)
        for text in (
            "+ headers_bytes or incarnation > MAX_MS",
            "if record:byte(1) ~= FORMAT",
            "if not whole or not NAME[state]",
            "if not t or (HELD[t.state]",
            "if not payload then return false",
            "if #record ~= 8 * how_many",
            "if numbers[i] > MAX_MS",
        )
    ),
    *(
        Explanation("prelude/transitions.lua", text, _BY_HAND)
        for text in (
            "if t == false then",
            "if payload and not state then",
            "if state and state.state == expected then",
        )
    ),
    Explanation("prelude/control.lua", "if control.format > FORMAT", _BY_HAND),
    Explanation("prelude/control.lua", "control.shards ~= CALL.shards", _BEHIND),
    Explanation("prelude/control.lua", "if control.deleting == 1", _DELETION),
    Explanation("collect.lua", "else", _BY_HAND),
    Explanation("configure.lua", "if control.uid and control.uid ~= CALL.uid", _BEHIND),
    Explanation("configure.lua", "if #control.uid ~= 16", _BY_HAND),
    Explanation("configure.lua", "if struct.unpack('>I8', control.uid)", _BEHIND),
    Explanation("configure.lua", "if control.erased == 0", _BEHIND),
    Explanation("configure.lua", "elseif control.erased == 1", _BEHIND),
    Explanation("erase.lua", "", _DELETION),
    Explanation("purge.lua", "if control.erased == 1", _DELETION),
    Explanation("purge.lua", "if not walk then", _BY_HAND),
    Explanation("redrive.lua", "if not walk then", _BY_HAND),
    Explanation("registry.lua", "", _REGISTRY),
    Explanation(
        "get.lua",
        "if record ~= '' and not full",
        "the machine asks for whole tasks: tests/service/test_rpcs.py",
    ),
    Explanation(
        "list.lua",
        "if bytes > max_bytes",
        "more than 3 MiB of payloads on one page: tests/store/test_listing.py",
    ),
    Explanation(
        "queue.py",
        "except OverflowError",
        "a backoff beyond all numbers, after hundreds of attempts: tests/store/test_retries.py",
    ),
    Explanation("queue.py", "base = math.inf", "the same"),
)

STATUSES: Mapping[type, str] = {
    ops.Enqueue: "CREATED EXISTS CONFLICT SCHEDULED READY LEASED FINISHED REVISION FULL",
    ops.Retrieve: "LEASED REPEATED",
    ops.Ack: "OK LEASE_LOST NOT_FOUND",
    ops.RunAgain: "OK LEASE_LOST NOT_FOUND",
    ops.Nack: "OK LEASE_LOST NOT_FOUND",
    ops.Extend: "OK LEASE_LOST NOT_FOUND",
    ops.Release: "OK LEASE_LOST NOT_FOUND",
    ops.Snooze: "OK SNOOZED_OUT LEASE_LOST NOT_FOUND",
    ops.Cancel: "CANCELLED ALREADY LEASED FINISHED NOT_FOUND",
    ops.Reschedule: "OK LEASED FINISHED REVISION NOT_FOUND",
    ops.Get: "OK NOT_FOUND",
    ops.List: "OK",
    ops.Redrive: "OK NOT_DEAD NOT_FOUND DONE MORE",
    ops.DeleteDead: "OK NOT_DEAD REVISION NOT_FOUND",
    ops.Purge: "DONE MORE",
    ops.Configure: "OK",
    ops.Survey: "OK",
    ops.Acquire: "ACQUIRED KEPT TAKEN",
    ops.Resign: "RESIGNED NOT_LEADER",
    ops.Promote: "OK NOT_LEADER",
    ops.Reap: "OK NOT_LEADER",
    ops.Collect: "OK",
    ops.Request: "CLOCK_UNSAFE REQUEST_EXPIRED",
}
"""What each operation can answer. DONE and MORE stand for steps that say whether more is to do."""


# The scripts -------------------------------------------------------------------------------


def instrument(name: str, text: str) -> tuple[str, dict[str, Site]]:
    """A script in which each branch counts itself, and the places by the names they count under."""
    sites: dict[str, Site] = {}
    lines = text.split("\n")

    def count(found: re.Match[str]) -> str:
        if found[2] is None:
            return found[0]
        line = text.count("\n", 0, found.start()) + 1
        key = f"{name}:{line}:{len(sites)}"
        sites[key] = Site(f"{name}.lua", line, lines[line - 1].strip())
        return f"{found[2]} HIT('{key}')"

    counted = _TOKEN.sub(count, text).split("\n")
    if name in {PRELUDE[0], "registry"}:
        # All other scripts have the prelude before them.
        first = next(at for at, line in enumerate(counted) if line and not line.startswith("--"))
        counted[first] = _HIT_LUA + counted[first]
    return "\n".join(counted), sites


def instrumented() -> tuple[dict[str, str], dict[str, Site]]:
    """All scripts, and all their places."""
    texts: dict[str, str] = {}
    sites: dict[str, Site] = {}
    for name, text in sorted(script_texts().items()):
        if name != "clock":
            texts[name], found = instrument(name, text)
            sites |= found
    return texts, sites


def read_hits(client: redis.Redis) -> Counter[str]:
    """What was counted in one database."""
    hits: Any = client.hgetall(HITS_KEY)
    return Counter({key.decode(): int(value) for key, value in hits.items()})


# The specification -------------------------------------------------------------------------


def executable_lines() -> dict[int, Site]:
    """Each line of the specification that is inside a function and runs."""
    source = inspect.getsource(queue)
    lines = source.splitlines()

    def walk(code: CodeType) -> Iterator[int]:
        in_function = bool(code.co_flags & inspect.CO_NEWLOCALS)
        if in_function:
            yield from (
                line for _, _, line in code.co_lines() if line and line != code.co_firstlineno
            )
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from walk(inner)

    code = compile(source, queue.__file__, "exec")
    return {line: Site("queue.py", line, lines[line - 1].strip()) for line in walk(code)}


class Watch:
    """Notes the lines of the specification that run while one of its functions is called."""

    def __init__(self) -> None:
        self.lines: set[int] = set()

    def _note(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != queue.__file__:
            return None
        if event == "line":
            self.lines.add(frame.f_lineno)
        return self._note

    def watching(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched."""

        def watched(*args: Any) -> Any:
            before = sys.gettrace()
            sys.settrace(self._note)
            try:
                return function(*args)
            finally:
                sys.settrace(before)

        return watched


def labels(operation: ops.Operation, result: tuple[Any, ...]) -> Iterable[str]:
    """What STATUSES calls a result."""
    if isinstance(operation, ops.Redrive):
        return result[2] or (("MORE", "DONE")[result[1]],)
    if isinstance(operation, ops.Purge):
        return (("MORE", "DONE")[result[1]],)
    return (result[0] if isinstance(result[0], str) else "OK",)


# The runs ----------------------------------------------------------------------------------


@dataclass
class Visits:
    """How often each place was visited."""

    hits: Counter[str]
    pairs: Counter[tuple[str, str]]
    lines: set[int]


def run_machine(socket: str, texts: Mapping[str, str], visits: Visits, examples: int) -> None:
    """Level 2, the same examples as in the tests."""
    watch = Watch()
    ask, close = QueueMachine.ask, RealShard.close

    def asked(self: QueueMachine, *operations: Any, **options: Any) -> ops.Response:
        response = ask(self, *operations, **options)
        if not response.results:
            visits.pairs["Request", response.status] += 1
        for operation, result in zip(operations, response.results, strict=False):
            for label in labels(operation, result):
                visits.pairs[type(operation).__name__, label] += 1
        return response

    def closed(self: RealShard) -> None:
        visits.hits.update(read_hits(self.redis))
        close(self)

    with contextlib.ExitStack() as patches:
        for target, name, value in (
            (machine, "step", watch.watching(queue.step)),
            (machine, "conserved", watch.watching(queue.conserved)),
            (RealShard, "close", closed),
            (QueueMachine, "ask", asked),
            (QueueMachine, "replace", texts),
        ):
            patches.enter_context(mock.patch.object(target, name, value))
        QueueMachine.socket = socket
        options = settings(settings.get_profile("ci"), max_examples=examples, database=None)
        run_state_machine_as_test(QueueMachine, settings=options)
    visits.lines |= watch.lines


def run_simulations(socket: str, texts: Mapping[str, str], visits: Visits, count: int) -> None:
    """Level 3, on one node and with failovers."""
    scripts = simulated_scripts(texts)
    clients = [redis.Redis(unix_socket_path=socket, db=number) for number in range(3)]
    for scenario in SCENARIOS:
        for seed in range(count):
            simulate(socket, scripts, scenario, Random(seed).randrange)
            for client in clients:
                visits.hits.update(read_hits(client))
    for client in clients:
        client.close()


def places(visits: Visits, sites: Mapping[str, Site]) -> dict[Site, int]:
    """Every place and how often it was visited: the scripts', the pairs', the specification's."""
    counts: dict[Site, int] = {}
    for key, site in sites.items():
        # Of two branches on one line, the one that was visited less often speaks for the line.
        counts[site] = min(visits.hits[key], counts.get(site, sys.maxsize))
    for kind, statuses in STATUSES.items():
        for status in statuses.split():
            site = Site("step", 0, f"{kind.__name__} {status}")
            counts[site] = visits.pairs.pop((kind.__name__, status), 0)
    for name, status in visits.pairs:
        raise AssertionError(f"{name} answered {status}, which STATUSES does not list")
    for line, site in executable_lines().items():
        counts[site] = int(line in visits.lines)
    return counts


def report(counts: Mapping[Site, int], *, everything: bool) -> int:
    """Prints what was not visited; the exit code."""
    used: set[Explanation] = set()
    unexplained = []
    if everything:
        for site, count in sorted(counts.items()):
            print(f"{count:>8}  {site}")
    for site in sorted(site for site, count in counts.items() if not count):
        explanation = next((e for e in EXPLANATIONS if e.fits(site)), None)
        if explanation is None:
            unexplained.append(site)
            continue
        used.add(explanation)
        print(f"{site}\n        {explanation.reason}")
    for file in sorted({site.file for site in counts}):
        own = [count for site, count in counts.items() if site.file == file]
        print(f"{file:<18} {sum(map(bool, own)):>4} of {len(own):>4} visited")
    for site in unexplained:
        print(f"not visited, not explained: {site}")
    stale = [explanation for explanation in EXPLANATIONS if explanation not in used]
    for explanation in stale:
        print(f"explains nothing any more: {explanation.file}: {explanation.text}")
    return 1 if unexplained or stale else 0


def main() -> int:
    """Runs both levels and reports; see the module."""
    parser = argparse.ArgumentParser(prog="make branches", description=__doc__)
    ci = settings.get_profile("ci").max_examples
    parser.add_argument("--examples", type=int, default=ci, help="of level 2")
    parser.add_argument("--simulations", type=int, default=200, help="of each scenario of level 3")
    parser.add_argument("--all", action="store_true", help="also list what was visited, how often")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    texts, sites = instrumented()
    visits = Visits(Counter(), Counter(), set())
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder), sync_always=False)
        runner.run(store.start())
        try:
            socket = str(store.socket_path)
            run_machine(socket, texts, visits, options.examples)
            run_simulations(socket, texts, visits, options.simulations)
        finally:
            runner.run(store.stop())
    return report(places(visits, sites), everything=options.all)


__all__ = ["profiles"]


if __name__ == "__main__":
    sys.exit(main())
