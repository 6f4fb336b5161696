"""The scripts and JobStore on a real Valkey, with a clock that the test moves."""
