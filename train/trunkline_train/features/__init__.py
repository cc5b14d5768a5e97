"""Builds training rows from examples, stores them as tables and caches them on disk."""
