"""The Open Inference Protocol, as Triton's clients speak it: docs/open-inference.md."""
