"""The entrypoint of a data node."""
