"""The configuration that a data node is started with."""

from __future__ import annotations

import os
from pathlib import Path

from ddq.node.decision import Follow, Lead

NAME = "node.conf"

# What docs/OPERATIONS.md asks of a store of three data nodes, for those who give no file.
DEFAULTS = """\
# Without a password the server would listen on the loopback only; keep others out of its network.
protected-mode no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
min-replicas-to-write 1
min-replicas-max-lag 2
repl-diskless-sync-delay 0
"""

# These say what a node is; a file that was written for another life of it must not.
_OURS = {"port", "dir", "replicaof", "slaveof"}


def write_config(data: Path, template: str, *, port: int, role: Follow | Lead) -> Path:
    """Writes ``node.conf`` into the data folder, and returns its path.

    From the template at each start: that is what the operator edits. Sentinel has the running
    node rewrite it, so it has to lie where the node may write.
    """
    kept = [line for line in template.splitlines() if _directive(line) not in _OURS]
    lines = [*kept, f"port {port}", f"dir {_quoted(str(data))}"]
    if isinstance(role, Follow):
        ip, _, master_port = role.master.rpartition(":")
        lines.append(f"replicaof {ip} {master_port}")
    path = data / NAME
    fresh = data / f".{NAME}.new"
    fresh.write_text("\n".join([*lines, ""]))
    # It may hold a password.
    fresh.chmod(0o600)
    # Never half a file, should the machine stop here: the rest of it would be the defaults.
    os.replace(fresh, path)  # noqa: PTH105
    return path


def _directive(line: str) -> str:
    words = line.split(maxsplit=1)
    return words[0].lower() if words else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
