"""Training of several tasks on one shared encoder.

Importing this loads no torch; training does.
"""

from trunkline_train import corpora
from trunkline_train.api import Task, TrainedModel, load, train
from trunkline_train.corpora import Corpus

__all__ = ["Corpus", "Task", "TrainedModel", "corpora", "load", "train"]
