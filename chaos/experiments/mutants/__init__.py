"""Mistakes that only a real cluster shows, planted on purpose; never part of the shipped package.

Each is a patch of a function of ddq, made in a process that is then ``ddq`` as usual:

    python -m chaos.experiments.mutants.launch wait-left-out serve --store …
"""
