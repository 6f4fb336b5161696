"""A world without faults in which commands take no time: what is late was slept through (G6).

There is no sweep in here: a scheduler that neither its own knowledge nor a hint wakes sleeps on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any
from unittest import mock

from ddq.scheduler import Scheduler
from tests.stateful.play import _make_topic, _read_journal, simulated_scripts
from tests.stateful.story import History
from tests.stateful.world import Stop, World

STEPS_MAX_COUNT = 2_000


class Quiet:
    """A world in which all that can happen happens before time passes, in an order of chance."""

    def __init__(self, socket: str, random: Random, *, schedulers: int, hints: bool) -> None:
        self.world = World(
            socket, simulated_scripts(), lambda _: 0, "quorum", faults=False, apis=1,
            schedulers=schedulers,
        )  # fmt: skip
        self.history = History()
        self._random = random
        self._hints = hints
        self._answers: list[Callable[[], Any]] = []
        self.ran: Counter[tuple[str, str]] = Counter()

    def scheduler(self, number: int = 1) -> Scheduler:
        """One of its schedulers."""
        scheduler = self.world.processes[f"scheduler{number}"].scheduler
        assert scheduler is not None
        return scheduler

    def run_until(self, end_s: float) -> None:
        """Everything up to a moment."""
        world = self.world
        for _ in range(STEPS_MAX_COUNT):
            if self.run_one():
                continue
            timer_s = world.loop.next_timer_s()
            if timer_s is None or timer_s > end_s:
                world.loop.move_to(end_s)
                return
            world.loop.move_to(timer_s)
        raise AssertionError("G6 bounded lateness: somebody asks again and again")

    def run_one(self) -> bool:
        """One thing that can happen now; False when nothing can."""
        world = self.world
        if not self._hints:
            world.hints.clear()
        ways: list[Callable[[], Any]] = [partial(self._run, stop) for stop in world.stops]
        ways += [partial(self._answer, position) for position in range(len(self._answers))]
        ways += [partial(world._hint, position) for position in range(len(world.hints))]
        if ways:
            self._random.choice(ways)()
            world.loop.settle()
        return bool(ways)

    def _run(self, stop: Stop) -> None:
        """What a command did may be told of by a hint before its own answer is there."""
        self.ran[stop.process, self.world._names[str(stop.command[1])]] += 1
        reply = self.world._execute(stop)
        self._answers.append(partial(stop.done.set_result, reply))

    def refuse(self, times: int) -> Callable[[Stop], None]:
        """Runs commands, but breaks the first ones of schedulers."""
        run, left = self._run, iter(range(times))

        def run_or_break(stop: Stop) -> None:
            broken = stop.process.startswith("scheduler") and next(left, None) is not None
            (self.world._break if broken else run)(stop)

        return run_or_break

    def _answer(self, position: int) -> None:
        self._answers.pop(position)()

    def journal(self) -> list[dict[str, Any]]:
        """What happened."""
        world = self.world
        return _read_journal(world.cluster.client("one").xrange(world.shard.key("journal")))


@contextmanager
def quiet(socket: str, seed: int, *, schedulers: int = 1, hints: bool = True) -> Iterator[Quiet]:
    """A topic in a world without sweeps; schedulers have not started."""
    with (
        mock.patch.object(Scheduler, "_sweep_s", property(lambda _: 1e6)),
        mock.patch.object(Scheduler, "_topics_interval_s", property(lambda _: 1e6)),
    ):
        it = Quiet(socket, Random(seed), schedulers=schedulers, hints=hints)
        try:
            it.world.spawn(_make_topic(it.world), "operator")
            it.run_until(0.001)
            yield it
        finally:
            it.world.close()
