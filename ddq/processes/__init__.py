"""Several processes that work as one: a parent that starts and replaces them, and their side."""

from ddq.processes.member import membership
from ddq.processes.port import reserved_port
from ddq.processes.supervisor import ChildFailedError, ChildKilledError, Supervised, Supervisor

__all__ = [
    "ChildFailedError",
    "ChildKilledError",
    "Supervised",
    "Supervisor",
    "membership",
    "reserved_port",
]
