"""Loads the Lua scripts: one file per transition, with a header that is read and checked here.

Before a script go the clock and the prelude, which is seven files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PRELUDE = (
    "prelude/changes",
    "prelude/control",
    "prelude/ids",
    "prelude/records",
    "prelude/transitions",
    "prelude/walks",
    "prelude/hints",
)
"""The files of the prelude; each uses only what stands before it."""
_PARTS = ("clock", *PRELUDE)
_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_DEFINED = re.compile(r"local (?:function )?([\w, ]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """One script as the store runs it.

    Attributes:
        name: of its file.
        purpose: the first sentences of its header.
        argv: its arguments behind those of the prelude, one line each.
        returns: every return, one line each.
        allow_oom: whether it also runs when the store is at its maxmemory.
        source: what is sent: flags, what it uses of clock and prelude, script.
        sha1: what EVALSHA is called with, hexadecimal.
    """

    name: str
    purpose: str
    argv: tuple[str, ...]
    returns: tuple[str, ...]
    allow_oom: bool
    source: str
    sha1: str


def _used_parts(prelude: str, body: str) -> str:
    """The definitions of the prelude that a script uses, and those that these use.

    The store runs the whole text with every call: a function that is not used costs as much as one
    that is. A definition begins with ``local`` at the start of a line and ends before the next one.
    """
    wanted = set(_words(body))
    kept: list[str] = []
    for text in reversed(re.split(r"^(?=local )", prelude, flags=re.MULTILINE)):
        code = _COMMENT.sub("", text)
        names = _DEFINED.match(code)
        # What stands before the first definition of a file are comments.
        if names and wanted.isdisjoint(_words(names[1])):
            continue
        wanted.update(_words(code))
        kept.append(code.rstrip() + "\n" if code.strip() else "")
    return "".join(reversed(kept))


def _words(code: str) -> list[str]:
    return _WORD.findall(_COMMENT.sub("", code))


def parse_script(name: str, body: str, parts: Mapping[str, str]) -> Script:
    """A script from its file's text and the parts that go before it.

    Raises:
        ValueError: the header lacks purpose, flags, argv or returns.
    """
    header = []
    for line in body.splitlines():
        if not line.startswith("-- "):
            break
        header.append(line[3:])
    tagged: dict[str, list[str]] = {"flags": [], "argv": [], "returns": []}
    purpose, with_prelude = [], True
    for line in header:
        tag, _, rest = line.partition(":")
        if tag in tagged:
            tagged[tag].append(rest.strip())
        elif tag == "prelude":
            with_prelude = not rest.strip().startswith("clock")
        elif not any(tagged.values()):
            purpose.append(line)
    text = " ".join(purpose)
    if not text.startswith(f"{name}: ") or not all(tagged.values()):
        raise ValueError(
            f"lua/{name}.lua needs a header with '{name}: purpose', flags, argv and returns"
        )
    allow_oom = tagged["flags"][0].split()[0] == "allow-oom"
    shebang = "#!lua flags=allow-oom\n" if allow_oom else "#!lua\n"
    before = "".join(parts[part] for part in (_PARTS if with_prelude else _PARTS[:1]))
    source = shebang + _used_parts(before, body) + body
    return Script(
        name=name,
        purpose=text.removeprefix(f"{name}: "),
        argv=tuple(tagged["argv"]),
        returns=tuple(tagged["returns"]),
        allow_oom=allow_oom,
        source=source,
        sha1=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
    )


def script_texts() -> dict[str, str]:
    """The text of every file, by its path below ``lua`` without ``.lua``."""
    root = files(__package__) / "lua"
    texts = {}
    for folder, prefix in ((root, ""), (root / "prelude", "prelude/")):
        for path in folder.iterdir():
            if path.name.endswith(".lua"):
                name = prefix + path.name.removesuffix(".lua")
                texts[name] = path.read_text(encoding="utf-8")
    return texts


def load_scripts(replace: Mapping[str, str] | None = None) -> dict[str, Script]:
    """Every script by name.

    Args:
        replace: other texts for some files, by their names in script_texts: another ``clock`` for
            a test that owns time, or a script with a mistake built in to see it caught.
    """
    texts = script_texts()
    unknown = set(replace or {}) - set(texts)
    if unknown:
        raise ValueError(f"no such script: {', '.join(sorted(unknown))}")
    texts.update(replace or {})
    return {
        name: parse_script(name, body, texts)
        for name, body in sorted(texts.items())
        if name not in _PARTS
    }


@cache
def default_scripts() -> Mapping[str, Script]:
    """The scripts as they are shipped."""
    return load_scripts()
