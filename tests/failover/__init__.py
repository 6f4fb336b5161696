"""`make failover`: minutes of failovers under traffic; its core is tests/chaos/test_failover.py."""
