"""ddq: a distributed delay queue over gRPC, kept in Valkey or Redis."""

__version__ = "0.2.0"
