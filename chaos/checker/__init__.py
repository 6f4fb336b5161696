"""Judges what a run left: pure functions of a history, without a cluster."""
