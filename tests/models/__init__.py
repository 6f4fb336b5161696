"""Level 1: the specification by hand-worked traces, and its uncertain form."""
