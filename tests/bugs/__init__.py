"""Level 5: mistakes seeded on purpose, one at a time, to see that they are caught.

`make bugs` runs them all. They live in the tests and patch texts and functions from outside;
nothing in the shipped package can switch one on.
"""
