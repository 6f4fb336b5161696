"""Waits until a data node may start, and starts it in the place of this process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ddq.errors import DdqError
from ddq.node.config import DEFAULTS, write_config
from ddq.node.decision import Follow, Lead, Refuse, Wait, decide
from ddq.node.sentinels import Sentinels

ASK_INTERVAL_S = 0.25
# The same reason is logged again from time to time, for readers who see only the end of the log.
REMIND_INTERVAL_S = 10.0

_log = logging.getLogger(__name__)


class NodeStartError(DdqError):
    """The data node cannot be started; the message says why and what to do."""

    reason = "NODE_START_FAILED"
    definite = True


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a data node is to be started.

    Attributes:
        data: its folder; made if it does not exist.
        ip, port: as the Sentinels know it.
        server: the binary.
        config: the operator's settings for it; those of docs/OPERATIONS.md if None.
        bootstrap, force_master: see ``decide``.
    """

    data: Path
    ip: str
    port: int
    sentinels: Sentinels
    server: Path
    config: Path | None = None
    bootstrap: bool = False
    force_master: bool = False

    @property
    def own(self) -> str:
        """ip:port."""
        return f"{self.ip}:{self.port}"


async def wait_for_role(options: NodeOptions) -> Follow | Lead:
    """Asks the Sentinels until the node may start, and says what as.

    Raises:
        NodeStartError: it must not, and waiting will not change that.
    """
    said, said_at_s = "", 0.0
    while True:
        views, silent = await options.sentinels.views()
        decision = decide(
            views,
            sentinels_count=len(options.sentinels.addresses),
            own=options.own,
            bootstrap=options.bootstrap,
            force_master=options.force_master,
        )
        match decision:
            case Refuse(why):
                raise NodeStartError(why)
            case Wait(why):
                line = "; ".join([why, *silent])
                now_s = time.monotonic()
                if line != said or now_s - said_at_s >= REMIND_INTERVAL_S:
                    _log.warning("waiting: %(reason)s", {"reason": line})
                    said, said_at_s = line, now_s
                await asyncio.sleep(ASK_INTERVAL_S)
            case Follow(master):
                _log.info(
                    "starting as a replica of %(master)s, which the Sentinels name",
                    {"master": master},
                )
                return decision
            case Lead(why):
                _log.warning("starting as MASTER: %(reason)s", {"reason": why})
                return decision


def become_server(options: NodeOptions, role: Follow | Lead) -> NoReturn:
    """Writes the configuration and replaces this process by the server.

    Raises:
        NodeStartError: the folder, the file or the binary cannot be used.
    """
    try:
        options.data.mkdir(parents=True, exist_ok=True)
        template = options.config.read_text() if options.config else DEFAULTS
        path = write_config(options.data.absolute(), template, port=options.port, role=role)
        # The process that was asked to run is the server from now on: signals reach it, and
        # a wait for the one is a wait for the other.
        os.execv(options.server, [str(options.server), str(path)])  # noqa: S606
    except OSError as error:
        raise NodeStartError(f"cannot start the data node: {error}") from None
