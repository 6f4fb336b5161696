"""The system under test: what is started, called and exposed to faults beside the store."""
