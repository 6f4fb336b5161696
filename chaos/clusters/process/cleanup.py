"""Removes what runs left behind that died before they could: rules, processes, mounts, folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

from chaos.clusters.process import firewall
from chaos.clusters.process.loopback import marks, read_mark


async def sweep() -> list[str]:
    """Clears up after every dead run of this user; returns a line for each thing removed."""
    removed = []
    for number, path in marks():
        with path.open("r+") as mark:
            try:
                # By its lock and not by a process id: those are used again.
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            folder = read_mark(mark)
            if folder is None:
                continue
            removed += _clear(folder)
            # Under the lock, else they could be the rules of who took the net meanwhile.
            if firewall.why_unavailable() is None:
                count = await firewall.remove_rules_of(number)
                removed += [f"{count} iptables rules of {folder}"] if count else []
            mark.truncate(0)
    return removed


def _clear(folder: Path) -> list[str]:
    removed = []
    for pid in _processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            removed.append(f"process {pid} of {folder}")
    for mount in _mounts_below(folder):
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
        removed.append(f"mount {mount}")
    # One that its owner named is kept: what is in it may be the reason why he looks.
    if folder.name.startswith("ddq-chaos-") and folder.is_dir():
        shutil.rmtree(folder)
        removed.append(f"folder {folder}")
    return removed


def _processes_of(folder: Path) -> list[int]:
    """Servers that were started with a configuration in this folder."""
    pids = []
    prefix = os.fsencode(f"{folder}/")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if any(word.startswith(prefix) and word.endswith(b".conf") for word in words):
                pids.append(int(entry.parent.name))
    return pids


def _mounts_below(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        lines = Path("/proc/mounts").read_text().splitlines()
        mounts = [Path(line.split()[1]) for line in lines]
        return [mount for mount in mounts if mount.is_relative_to(folder)]
    return []
