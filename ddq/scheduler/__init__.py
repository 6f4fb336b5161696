"""The scheduler: moves what is due, by the leadership it holds, and sleeps in between."""

from ddq.scheduler.loop import Scheduler

__all__ = ["Scheduler"]
