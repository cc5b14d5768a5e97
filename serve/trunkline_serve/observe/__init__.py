"""Seeing what a server does: metrics, traces, its log, and `trunkline top`."""
