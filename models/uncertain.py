"""The specification under unknown outcomes: the set of states that the shard may be in.

A request with an unknown outcome forks the set: it ran at some time, or it did not. An
observation filters it: only states that explain the answer remain. When none remains, the
answer contradicts the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from models.operations import Request, Response
from models.queue import Shard, step


class UnexplainedError(Exception):
    """No possible state explains the answer that was seen."""


@dataclass(frozen=True)
class UncertainShard:
    """The possible states, each once, in the order in which they were found."""

    shards: tuple[Shard, ...] = (Shard(),)

    def maybe(self, request: Request, moments_ms: Iterable[int]) -> UncertainShard:
        """Adds the states in which ``request`` ran at one of the times; its answer was lost."""
        found = list(self.shards)
        for moment_ms in moments_ms:
            found += [step(shard, request, moment_ms)[0] for shard in self.shards]
        return UncertainShard(_distinct(found))

    def observe(
        self,
        request: Request,
        now_ms: int,
        response: Response,
        seen_as: Callable[[Request, Response], Response] | None = None,
    ) -> UncertainShard:
        """Keeps the states in which ``request``, at ``now_ms``, is answered with ``response``.

        Args:
            seen_as: reduces an answer to the part of it that was observed; None: all of it.

        Raises:
            UnexplainedError: no possible state gives that answer.
        """
        outcomes = [
            (after, seen_as(request, answer) if seen_as else answer)
            for after, answer in (step(shard, request, now_ms) for shard in self.shards)
        ]
        left = [shard for shard, answer in outcomes if answer == response]
        if not left:
            answers = ", or ".join(str(answer) for _, answer in outcomes)
            raise UnexplainedError(f"{request} was answered {response}; possible is {answers}")
        return UncertainShard(_distinct(left))


def _distinct(shards: list[Shard]) -> tuple[Shard, ...]:
    kept: list[Shard] = []
    for shard in shards:
        if shard not in kept:
            kept.append(shard)
    return tuple(kept)
