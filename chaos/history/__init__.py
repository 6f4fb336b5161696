"""What a run leaves: the clients' history, the store's journal and the final state, on disk."""
