"""Seeded mutations: mistakes that only a real cluster shows; never part of the shipped package.

Each is a patch of a function of ddq, made in a process that is then ``ddq`` as usual:

    python -m chaos.experiments.mutants.launch wait-left-out serve --store …
"""
