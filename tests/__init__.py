"""The tests of ddq."""
