"""Graphs beside what else would run the same weights, without a server: `__main__` has it all."""
