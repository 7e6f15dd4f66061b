"""The gRPC server: translates requests, calls the database, translates what it returns."""
