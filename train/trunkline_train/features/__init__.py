"""Examples to training rows: built, kept as tables, cached on disk."""
