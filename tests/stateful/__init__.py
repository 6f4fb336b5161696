"""Levels 2 and 3: the specification against the real store, step by step and interleaved."""
