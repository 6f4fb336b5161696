"""ddq as the system under test: its servers and schedulers, as local processes or in containers."""
