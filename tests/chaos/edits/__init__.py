"""A corpus of edits of a real history: each makes one anomaly, or none, and says why."""
