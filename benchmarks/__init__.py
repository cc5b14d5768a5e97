"""Measurements: run from the checkout, results in benchmarks/results/."""
