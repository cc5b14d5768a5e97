"""Several processes: fronts that speak gRPC, tokenise and decode, and one engine that computes.

`supervisor` starts and restarts them, `front` and `computer` are what they run. Between a front and
the engine go small messages (`wire`) on a Unix socket; tensors stay in memory that both have mapped
(`memory`).
"""
