"""The command line of a child process that ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The child asks the kernel to be killed with its parent, before it becomes the program. The parent
# may have died in between; then the child belongs to another process, and must not start.
_LAUNCHER = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    sys.exit("its parent is gone")
os.setsid()
os.execv(sys.argv[2], sys.argv[2:])
"""


def launched(command: Sequence[str]) -> list[str]:
    """The command line that starts ``command`` as a child of this process, in its own session.

    Args:
        command: the path of a program, and its arguments.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
