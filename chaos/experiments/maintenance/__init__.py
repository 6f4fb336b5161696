"""What operators do on purpose, under traffic: restarts, failovers, moves of slots, upgrades.

Unlike a scenario's faults these are the procedures of docs/OPERATIONS.md, step by step. Beside the
promises it counts that no request failed that had half a minute.
"""
