"""The services over real gRPC."""
