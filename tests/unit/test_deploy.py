"""What deploy/ says fits what the programs do."""

from __future__ import annotations

import re
from pathlib import Path

from ddq.config import MS_PER_SECOND, Settings
from ddq.server.draining import LINGER_S, SETTLE_MAX_S
from ddq.store.embedded import STOP_TIMEOUT_S

ROOT = Path(__file__).parents[2]
CONTAINER_ENGINES_GIVE_S = 10.0


def longest_stop_s() -> float:
    """From SIGTERM to the end of a server with an embedded store, by the defaults."""
    return SETTLE_MAX_S + Settings().drain_ms / MS_PER_SECOND + LINGER_S + STOP_TIMEOUT_S


def test_a_server_ends_before_container_engines_kill_it() -> None:
    assert longest_stop_s() < CONTAINER_ENGINES_GIVE_S


def test_compose_gives_every_program_the_time_to_stop() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    (given_s,) = re.findall(r"^  stop_grace_period: (\d+)s$", text, re.MULTILINE)
    assert longest_stop_s() < float(given_s)
    program = text.index("x-program: &program")
    assert program < text.index("stop_grace_period") < text.index("x-host: &host")
