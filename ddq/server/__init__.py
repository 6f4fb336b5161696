"""The server process: the gRPC services over one store."""

from ddq.server.main import ServerInfo, ServerOptions, run_server

__all__ = ["ServerInfo", "ServerOptions", "run_server"]
