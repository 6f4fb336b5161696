"""The store: JobStore over Valkey or Redis, one Lua script a transition."""
