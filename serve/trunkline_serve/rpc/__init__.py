"""gRPC: requests to engine calls, errors to statuses, and the life of a server."""
