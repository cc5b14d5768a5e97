"""Figures of the result files, as matplotlib figures and PNG."""
