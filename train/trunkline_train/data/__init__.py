"""Reads data sets into examples, one reader per kind of task."""
