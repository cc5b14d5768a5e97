"""One HTML page of all results, which needs nothing beside it."""
