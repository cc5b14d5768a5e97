"""Load generation, and the same work in process beside it."""
