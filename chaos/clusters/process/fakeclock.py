"""A clock of its own for a process, by libfaketime: an offset in a file that can change."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

_SO = "libfaketime.so.1"


def library() -> Path | None:
    """The library that the wheel carries, or None."""
    # Not imported: importing it patches this process's environment.
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


@dataclass(frozen=True, slots=True)
class FakeClock:
    """The wall clock of one process, which is wrong by what a file says.

    Attributes:
        file: has the offset. It outlives the process: a host's clock is not set right by starting
            a process again.
        preload: the library, where the process finds it.
    """

    file: Path
    preload: Path

    def environment(self) -> dict[str, str]:
        """What the process must be started with."""
        if not self.file.exists():
            self.shift(0)
        return {
            "LD_PRELOAD": str(self.preload),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # The monotonic clock stays true, as on a machine whose wall clock jumps.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # The clock reads the offset again after so many seconds; with the default of ten
            # seconds it would not jump.
            "FAKETIME_CACHE_DURATION": "1",
        }

    def shift(self, offset_ms: int) -> None:
        """Moves it so far from the true one; the process sees it within a second."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset_ms / 1_000:+.3f}\n")
        # Never half a number.
        fresh.replace(self.file)
