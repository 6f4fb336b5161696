"""What needs other runtimes than Python: Go and Node."""
