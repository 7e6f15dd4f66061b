"""Clients of the gRPC server: the methods of a database and its collections, run elsewhere."""
