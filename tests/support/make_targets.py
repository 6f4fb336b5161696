"""The targets of the Makefile, with those that a pattern makes of the harness's commands."""

from __future__ import annotations

import re

from typer.main import get_command

from chaos.cli.app import RETIRED_NAMES, app
from tools.repo import ROOT


def make_targets() -> set[str]:
    """Every name that `make` takes."""
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^([a-z0-9-]+):", text, flags=re.MULTILINE))
    commands = {*getattr(get_command(app), "commands"), *RETIRED_NAMES}  # noqa: B009 - not typed
    prefixes = re.findall(r"^([a-z]+-)%:", text, flags=re.MULTILINE)
    return named | {prefix + command for prefix in prefixes for command in commands}
