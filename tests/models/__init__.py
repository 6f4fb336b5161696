"""Level 1: the specification by hand-worked stories, and its uncertain form."""
