"""The scheduler by itself, over a simulated store in virtual time."""
