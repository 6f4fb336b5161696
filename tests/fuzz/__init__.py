"""Hostile clients against a whole server: `make fuzz`."""
