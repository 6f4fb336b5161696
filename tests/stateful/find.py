"""Looks for broken promises: many simulations or state machine runs, until one breaks one."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.judging import PromiseBrokenError
from tests.stateful.machine import QueueMachine
from tests.stateful.simulate import Scenario, simulate, simulated_scripts

_PROMISE = re.compile(r"(G\d+) ")


@dataclass(frozen=True)
class Catch:
    """A broken promise, how it was found, and its report: the summary, and the log of the run."""

    promise: str
    level: int
    examples: int
    seconds: float
    report: str


def promise_of(error: BaseException) -> str | None:
    """The promise that an error names; None if it names none."""
    found = _PROMISE.match(str(error))
    return found.group(1) if found else None


def summaries_of(error: AssertionError) -> Mapping[str, str]:
    """The broken promises that an error names, each with a summary."""
    if isinstance(error, PromiseBrokenError):
        return error.summaries
    promise = promise_of(error)
    return {promise: str(error)} if promise is not None else {}


def find_by_steps(
    socket: str, replace: Mapping[str, str] | None, examples: int, *, shrink: bool
) -> Catch | None:
    """Level 2 until something breaks.

    Raises:
        Exception: what names no promise.
    """
    runs = Counter[str]()

    class Machine(QueueMachine):
        def __init__(self) -> None:
            runs["examples"] += not runs["caught"]
            super().__init__()

    Machine.socket, Machine.replace = socket, replace
    started_s = time.monotonic()
    options = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )
    try:
        run_state_machine_as_test(Machine, settings=options)
    except AssertionError as error:
        promise = promise_of(error)
        if promise is None or "STORE_MALFORMED" in str(error):
            # A script that crashes has not broken a promise; it has shown that the bug is none.
            raise
        report = "\n".join([str(error), *getattr(error, "__notes__", [])])
        return Catch(promise, 2, runs["examples"], time.monotonic() - started_s, report)
    return None


def find_by_simulations(
    socket: str,
    replace: Mapping[str, str] | None,
    scenario: Scenario,
    examples: int,
    *,
    shrink: bool,
    seed: int = 0,
    wanted: Collection[str] | None = None,
) -> Catch | None:
    """Level 3 until a promise breaks, or until one of the ``wanted`` promises does.

    Raises:
        Exception: what names no promise.
    """
    scripts = simulated_scripts(replace)

    def broken_by(choose: Callable[[int], int]) -> tuple[str, str] | None:
        """A broken promise that counts, and the report; None if there is none."""
        try:
            simulate(socket, scripts, scenario, choose)
        except AssertionError as error:
            summaries = summaries_of(error)
            if not summaries:
                raise
            promise = next((one for one in summaries if wanted is None or one in wanted), None)
            if promise is not None:
                return promise, "\n".join([summaries[promise], *getattr(error, "__notes__", [])])
        return None

    started_s = time.monotonic()
    for number in range(examples):
        random = Random(seed + number)
        choices: list[int] = []

        def choose(ways: int, random: Random = random, choices: list[int] = choices) -> int:
            choices.append(random.randrange(ways))
            return choices[-1]

        found = broken_by(choose)
        if found is None:
            continue
        seconds = time.monotonic() - started_s
        if shrink:
            found = broken_by(
                replay(shorten(choices, lambda few: broken_by(replay(few)) is not None))
            )
            assert found is not None
        return Catch(found[0], 3, number + 1, seconds, found[1])
    return None


def replay(choices: list[int]) -> Callable[[int], int]:
    """The same choices again; where they have run out, the one that is nothing special."""
    left = iter(choices)
    return lambda ways: next(left, 0) % ways


def shorten(choices: list[int], breaks: Callable[[list[int]], bool]) -> list[int]:
    """Fewer and smaller choices with which the same still breaks.

    Takes away runs of choices, halving their length down to one, and then sets single choices to
    0; stops when nothing more can be left out.
    """
    size = len(choices)
    while size:
        at = 0
        while at < len(choices):
            fewer = choices[:at] + choices[at + size :]
            if breaks(fewer):
                choices = fewer
            else:
                at += size
        size //= 2
    for at, choice in enumerate(choices):
        for smaller in range(choice):
            trial = [*choices[:at], smaller, *choices[at + 1 :]]
            if breaks(trial):
                choices = trial
                break
    return choices
