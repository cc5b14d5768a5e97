"""Metrics over annotations: what is scored is what is served."""
