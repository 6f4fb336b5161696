"""Runs a handler for each due task: leases, keeps the leases alive, and ends the attempts.

Delivery is at-least-once: a worker may die after its handler's side effect and before its ack, so
handlers have to bear being run again for the same task.
"""

from ddq.worker.handlers import Handler
from ddq.worker.job import DeadLetter, Job, NextRun, Retry, Snooze, Verdict
from ddq.worker.worker import Worker, WorkerStats

__all__ = [
    "DeadLetter",
    "Handler",
    "Job",
    "NextRun",
    "Retry",
    "Snooze",
    "Verdict",
    "Worker",
    "WorkerStats",
]
