"""Logits to annotations, in numpy: the same lines for training, evaluation and serving."""
