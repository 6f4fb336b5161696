"""The drivers: one program per peer, which produces and consumes tasks of the benchmark.

Each takes one job as JSON in its only argument and prints its result as a line of JSON; driver.py
describes both. Drivers import nothing of ddq unless they drive ddq: they run in environments
of their own.
"""
