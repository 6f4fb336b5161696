"""The demo: a whole queue at work for about twenty seconds, and a bill that has to add up."""
