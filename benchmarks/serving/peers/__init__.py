"""What people serve such a model with: each a server on the same weights, as its manual has it."""
