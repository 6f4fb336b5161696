"""Refuses the words that were retired, in names, comments, documents and messages.

    python -m tools.words             every place, with what to use instead; exit status 1 if any
    python -m tools.words --count     how many there are, by folder and word
    python -m tools.words docs ddq    only these files and folders

docs/ARCHITECTURE.md has the glossary: one name for one thing. A word is refused because it had
several meanings, or because a reader has to translate it. What has to keep one, such as the name of
a setting that users have, is in ALLOWED with the reason.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tools.repo import ROOT

WORDS: dict[str, str] = {
    "told": "replied, reported, given; or the message itself",
    "story": "simulation, trace, synthetic history, procedure",
    "stories": "simulations, traces, synthetic histories, counterexamples",
    "tale": "synthetic history",
    "tales": "synthetic histories",
    "dice": "rng",
    "victim": "target",
    "victims": "targets",
    "crowd": "client pool",
    "faulting": "fault recorder",
    "patient": "long time-out",
    "patience": "time-out, silence",
    "recipe": "maintenance procedure",
    "recipes": "maintenance procedures",
    "upkeep": "scheduler API",
    "outlook": "next wake-up",
    "stray": "orphaned",
    "strays": "orphaned entries",
    "bell": "notifier",
    "ear": "waiter",
    "heard": "notified, received",
    "believed": "trusted, cached",
    "vouch": "guarantee",
    "vouches": "guarantees",
    "bury": "purge",
    "buried": "purged",
    "crew": "worker pool",
    "planted": "seeded",
    "hunt": "mutation run",
    "whoever": "the caller, any client, the process that",
    "nobody": "no client, no process, no reader",
    "somebody": "a user, a client, another process",
    "anybody": "a client, a process, a reader",
    "everybody": "all clients, all processes, every reader",
    "whom": "the client that, the process that, which",
    "anew": "again; recreated, rebuilt",
    "hurt": "inject a fault into, expose to faults",
    "lane": "store connection",
    "lanes": "store connections",
}
"""One word, as a whole or as a part of an identifier."""

PHRASES: dict[str, str] = {
    r"\bset aside\b": "quarantined",
    r"\blets? go of\b": "release",
    r"\b(goes|go|went|going) on(?! (to|and on)\b)(?=[ .,;:)\n])": "continues",
    r"\bcomes? to (its|an) end\b": "finishes",
    r"(?<!there )\b(is|are|was|were) no (?!(longer|more|less|older|newer|later|earlier)\b)[a-z]+": (
        "is not a …, invalid …"
    ),
    r"\bone (script|file|row|line|entry|record|task|test|command) an? (?!time)\w+": "one … per …",
    r"\bso long from now\b": "delay from now",
    r"\bany more\b(?=.{0,3}$)": "no longer",
    r"\bdef test_(what|who)_": "subject, condition, result",
    r'"""Of (an?|the|all|any|those|what|its)\b': "a sentence: The …, that …",
}
"""Several words, as a regular expression."""

ALLOWED: tuple[tuple[str, str, str], ...] = (
    ("tools/words.py", "*", "this table"),
    ("tests/release/test_words.py", "*", "the tests of this table"),
    ("chaos/workloads/__init__.py", "patient", "a name of 0.2.0, in schedules and commands"),
    ("tests/chaos/test_scenarios.py", "patient", "the same"),
    ("CHANGELOG.md", "patient", "the same"),
    ("ddq/store/lua/*.lua", "stray", "a counter in the control record of a shard"),
    ("ddq/scheduler/gauges.py", "stray", "that counter, and a label of ddq_malformed_entries"),
    ("ddq/server/wire.py", "stray", "that counter"),
    ("tests/scheduler/test_gauges.py", "stray", "that counter, and a label of a metric"),
    ("tests/store/test_malformed.py", "stray", "that counter"),
    ("Makefile", "stories", "the old name of `make counterexamples`, which still works"),
    ("tests/bugs/__main__.py", "stories", "the old name of `make bugs ARGS=--logs`"),
    ("CHANGELOG.md", "stories", "both old names"),
)
"""Glob of files, word or phrase ('*': all), and why it stays."""

KEPT_NAMES: dict[str, str] = {
    "stray-replica": "a kind of fault, in schedules on disk and in docs/durability-matrix.json",
    "old-master-believed": "a scenario, in schedules on disk and in commands of users",
    "stale-master-believed": "a seeded mutation, in commands of users",
    "stray_entries": "a field of ShardStats in proto/ddq/v1, and of what is made from it",
}
"""Names that users have, wherever they occur, and why they stay."""

SUFFIXES = {".py", ".lua", ".proto", ".md", ".toml", ".yaml", ".yml", ".sh", ".html", ".css", ".js"}
GENERATED = ("ddq/v1/*", "requirements.lock", "tools/go/*", "LICENSE")


@dataclass(frozen=True, slots=True)
class Finding:
    """A retired word in a file.

    Attributes:
        line: from 1.
        word: as it is written there.
        use: what to write instead.
    """

    path: str
    line: int
    word: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: use {self.use}"


def _word_pattern(word: str) -> str:
    """The word between other letters than its own case: told, told_of, isTold, TOLD."""
    forms = (
        f"(?<![A-Za-z]){word}(?![a-z])",
        f"(?<![A-Z]){word.capitalize()}(?![a-z])",
        f"(?<![A-Z]){word.upper()}(?![A-Z])",
    )
    return "|".join(forms)


PATTERNS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    *((word, re.compile(_word_pattern(word)), use) for word, use in WORDS.items()),
    *((phrase, re.compile(phrase, re.IGNORECASE), use) for phrase, use in PHRASES.items()),
)
# The subjects of commits that exist, as `make changelog` copies them.
_COMMITS = re.compile(r"<!-- commits -->.*?<!-- /commits -->", flags=re.DOTALL)
_KEPT = re.compile("|".join(rf"\b{name}\b" for name in KEPT_NAMES))


def findings(path: str, text: str) -> Iterator[Finding]:
    """The retired words of a text that are not allowed in this file."""
    allowed = {key for glob, key, _ in ALLOWED if fnmatch(path, glob)}
    if "*" in allowed:
        return
    text = _COMMITS.sub(lambda found: "\n" * found[0].count("\n"), text)
    # A text has few of the words, and to look for each of them in each line took 17 s.
    lowered = text.lower()
    patterns = [
        each
        for each in PATTERNS
        if each[0] not in allowed
        and (each[0] in lowered if each[0] in WORDS else each[1].search(text))
    ]
    for number, line in enumerate(text.splitlines(), 1):
        kept = _KEPT.sub("", line)
        for _, pattern, use in patterns:
            for match in pattern.finditer(kept):
                yield Finding(path, number, match[0], use)


def tracked(only: Iterable[str] = ()) -> list[str]:
    """The files that are checked, by their paths from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *only]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        path
        for path in listed.stdout.splitlines()
        if (Path(path).suffix in SUFFIXES or Path(path).name == "Makefile")
        and not any(fnmatch(path, glob) for glob in GENERATED)
        and (ROOT / path).is_file()
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="words", description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", help="files and folders; all that git has, if none")
    parser.add_argument("--count", action="store_true", help="count by folder and word")
    options = parser.parse_args()
    found = [
        finding
        for path in tracked(options.paths)
        for finding in findings(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    if options.count:
        counts = Counter((Path(each.path).parts[0], each.word.lower()) for each in found)
        lines = [
            f"{count:5} {folder:<16} {word}" for (folder, word), count in sorted(counts.items())
        ]
    else:
        lines = [str(each) for each in found]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stderr.write(f"words: {len(found)} retired words\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
