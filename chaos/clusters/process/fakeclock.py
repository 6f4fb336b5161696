"""A clock of its own for a process, by libfaketime: an offset in a file that can change."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SO = "libfaketime.so.1"


def library() -> Path | None:
    """The library that the wheel carries, or None."""
    # Not imported: importing it patches the environment of whoever does.
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "vendor" / "libfaketime" / "src" / _SO
    return path if path.exists() else None


def why_unavailable() -> str | None:
    """Why no clock can be shifted here, and what would help; None if one can."""
    if sys.platform != "linux":
        return "clocks are shifted with LD_PRELOAD, which is Linux's"
    if library() is None:
        return "libfaketime is not installed; install the package libfaketime from PyPI"
    return None


def environment(offset_file: Path, preload: Path | None = None) -> dict[str, str]:
    """What a process must be started with so that ``set_offset`` moves its clock.

    Args:
        preload: the library; the wheel's if not given.
    """
    path = preload or library()
    assert path is not None
    set_offset(offset_file, 0)
    return {
        "LD_PRELOAD": str(path),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        # The monotonic clock stays true, as on a machine whose wall clock jumps.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        # The offset is looked up so often; the default of ten seconds is no jump.
        "FAKETIME_CACHE_DURATION": "1",
    }


def set_offset(offset_file: Path, offset_ms: int) -> None:
    """Moves the clock so far from the true one; the process sees it within a second."""
    fresh = offset_file.with_suffix(".new")
    fresh.write_text(f"{offset_ms / 1_000:+.3f}\n")
    # Never half a number.
    fresh.replace(offset_file)
