"""Removes what runs in containers left behind that died before they could."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from chaos.clusters.docker.engine import OWNER_LABEL, RUN_LABEL, Engine, owner, remove
from chaos.clusters.docker.net import dead_marks, is_dead


async def sweep(engine: Engine) -> list[str]:
    """Clears up after every dead run of this user on this machine; a line for each thing."""
    client = engine.client
    ours: dict[str, Any] = {"label": [f"{OWNER_LABEL}={owner()}", RUN_LABEL]}
    found = [
        *await engine.call(client.containers.list, all=True, filters=ours, ignore_removed=True),
        *await engine.call(client.networks.list, filters=ours),
        *await engine.call(client.volumes.list, filters=ours),
    ]
    runs = {int(_labels(each)[RUN_LABEL]) for each in found}
    removed: list[str] = []
    for run in sorted(runs):
        if is_dead(run):
            removed += await remove(engine, {OWNER_LABEL: owner(), RUN_LABEL: str(run)})
    for folder in dead_marks():
        if folder.name.startswith("ddq-chaos-") and folder.is_dir():
            await asyncio.to_thread(shutil.rmtree, folder)
            removed.append(f"folder {folder}")
    return removed


def _labels(thing: object) -> dict[str, str]:
    attrs = getattr(thing, "attrs", {})
    labels: dict[str, str] = attrs.get("Labels") or attrs.get("Config", {}).get("Labels") or {}
    return labels
