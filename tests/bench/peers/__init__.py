"""The drivers: one program per peer, which produces and consumes tasks of the benchmark.

Each takes one job as JSON in its only argument and prints one line of JSON. docs/PERFORMANCE.md
describes the fields. Drivers import nothing of ddq unless they drive ddq: they run in environments
of their own.
"""
