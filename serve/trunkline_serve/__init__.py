"""Trunkline over gRPC: batcher, engine, services, client."""
