"""The project's own tools: bootstrap, code generation and release checks."""
