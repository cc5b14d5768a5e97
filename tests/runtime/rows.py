"""Rows of random ids, and an output of every form."""

import numpy as np

from trunkline.encode import Row
from trunkline.kinds import Output

TOKENS = Output("ner.logits", ("batch", "sequence", "labels"))
STARTS = Output("qa.start_logits", ("batch", "sequence"))
WHOLE = Output("topic.logits", ("batch", "labels"))


def row(length: int, seed: int = 0) -> Row:
    ids, types = np.random.default_rng(seed).integers(1, 9, (2, length))
    return Row(ids, types, 1, 0, length - 2, 0, length - 2)
