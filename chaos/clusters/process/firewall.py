"""Drops packets between loopback addresses, with iptables rules that a sweeper can find again."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence

from chaos.clusters import ClusterError, Cut

# Each rule carries the net of its run, so that one that was left behind is known as such.
MARK = "ddq-chaos"
# Another user of iptables holds its lock for milliseconds, unless it is stuck.
_LOCK_WAIT_S = "10"
_RULE = re.compile(r"^\[(?P<packets>\d+):\d+\] -A (?P<rule>INPUT .*)$")


def why_unavailable() -> str | None:
    """Why packets cannot be dropped here, and what would help; None if they can."""
    if shutil.which("iptables") is None or shutil.which("iptables-restore") is None:
        return "iptables is not installed; install the package iptables"
    if os.geteuid() != 0:
        return "iptables needs root; run this as root"
    return None


def drop_rule(chain: str, cut: Cut, name: str) -> str:
    """The line for iptables-restore that begins a cut.

    Args:
        name: stands in the rule's comment, so that it can be found again.
    """
    some = f"-m statistic --mode random --probability {cut.share:.3f} " if cut.share < 1 else ""
    return (
        f"-I {chain} 1 -s {cut.source_ip}/32 -d {cut.target_ip}/32 {some}"
        f"-m comment --comment {name} -j DROP"
    )


class Firewall:
    """The rules of one run, in groups with a name each."""

    def __init__(self, net_number: int) -> None:
        self._owner = f"{MARK}-{net_number}-"
        self._count = 0

    async def drop(self, cuts: Sequence[Cut]) -> str:
        """Drops what goes from here to there, all of it from the same moment on."""
        self._count += 1
        name = f"{self._owner}{self._count}"
        # One transaction: rule by rule, a cut in both ways would be one way for milliseconds.
        await _restore(drop_rule("INPUT", cut, name) for cut in cuts)
        return name

    async def dropped_packets(self, name: str) -> int:
        """How many packets the rules of one group have dropped."""
        return sum(packets for packets, rule in await _rules() if _comment(rule) == name)

    async def heal(self, name: str | None = None) -> None:
        """Removes the rules of one group, or all of this run; cheap if there were never any."""
        if not self._count:
            return
        await _remove(lambda comment: comment == name if name else comment.startswith(self._owner))


async def remove_rules_of(net_number: int) -> int:
    """Removes what a run has left; returns how many rules those were."""
    owner = f"{MARK}-{net_number}-"
    return await _remove(lambda comment: comment.startswith(owner))


async def _remove(chosen: Callable[[str], bool]) -> int:
    rules = [rule for _, rule in await _rules() if chosen(_comment(rule))]
    if rules:
        await _restore(f"-D {rule}" for rule in rules)
    return len(rules)


def _comment(rule: str) -> str:
    match = re.search(r'--comment "?([^" ]+)"?', rule)
    return match[1] if match else ""


async def _rules() -> list[tuple[int, str]]:
    text = await _run(["iptables-save", "-c", "-t", "filter"])
    matches = (_RULE.match(line) for line in text.splitlines())
    return [(int(match["packets"]), match["rule"]) for match in matches if match]


async def _restore(lines: Iterable[str]) -> None:
    script = "\n".join(["*filter", *lines, "COMMIT", ""])
    await _run(["iptables-restore", "--noflush", "-w", _LOCK_WAIT_S], script)


async def _run(command: Sequence[str], stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise ClusterError(f"{command[0]} failed: {errors.decode(errors='replace').strip()}")
    return output.decode()
