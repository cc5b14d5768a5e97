"""Data sets: sources to examples, by kind of task."""
