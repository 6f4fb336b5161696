"""The previous release as a program, for upgrades under traffic.

Its wheel is kept in ``chaos/systems/ddq/releases``, since an upgrade has to be tried where neither
a package index nor the history of the repository is at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

PREVIOUS = "0.1.0"
WHEEL = Path(__file__).parent / "releases" / f"ddq-{PREVIOUS}-py3-none-any.whl"

# The packages that it needs are those of this environment, and only ddq itself is its own.
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ddq.cli import main; main()"


def previous_server(listen: str, master: str, leader_lease_ms: int) -> Sequence[str]:
    """The command that starts its server.

    0.1.0 knows a store of one node and nothing of failovers, and its servers also schedule. It
    gives a shard up without a notice, so that the next leader waits for its lease.

    Args:
        listen: where, as HOST:PORT.
        master: the store's address, as HOST:PORT.
    """
    return [
        sys.executable,
        "-P",
        "-c",
        START,
        str(WHEEL),
        "serve",
        "--listen",
        listen,
        "--store",
        f"redis://{master}",
        f"--leader-lease-ms={leader_lease_ms}",
    ]


__all__ = ["PREVIOUS", "START", "WHEEL", "previous_server"]
