"""Data sets: sources to examples, by kind of task."""

from trunkline_train.data.source import Readers, load_splits, load_test

__all__ = ["Readers", "load_splits", "load_test"]
