"""What tests share: a store of their own, a clock and entropy they control, a server."""
