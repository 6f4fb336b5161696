"""The commands of ``python -m chaos``."""
