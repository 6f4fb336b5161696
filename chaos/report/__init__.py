"""Shows a verdict: as a page, in the terminal, and as JUnit XML."""
