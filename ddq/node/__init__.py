"""A data node of the store, started so that it never boots as master: ``ddq node``.

A server that starts again does what its configuration says, and a master's says master. If it
lost its disk, or the end of it, and is back before the Sentinels noticed, the replicas follow it
down and what they held is gone. So the process that starts a data node asks the Sentinels first.
"""

from __future__ import annotations

from ddq.node.decision import Follow, Lead, Refuse, SentinelAnswer, Wait, decide
from ddq.node.run import NodeOptions, NodeStartError, wait_for_role

__all__ = [
    "Follow",
    "Lead",
    "NodeOptions",
    "NodeStartError",
    "Refuse",
    "SentinelAnswer",
    "Wait",
    "decide",
    "wait_for_role",
]
