"""Metrics over annotations, in the form in which they are served."""
