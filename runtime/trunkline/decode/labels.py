"""Text classification: logits [labels] per row to labels with their probabilities.

Every window of a long text says what the text is; their probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trunkline.annotations import Label
from trunkline.decode.numeric import Floats, check_finite, exp, log_sigmoid, log_softmax
from trunkline.encode import Encoded
from trunkline.tasks import TaskSpec, TextOptions


def decode_labels(spec: TaskSpec, encoded: Encoded, logits: Sequence[Floats]) -> tuple[Label, ...]:
    """Returns the text's labels, best first; none for a text without tokens.

    Args:
        spec: A text-classification task.
        encoded: The text's rows.
        logits: One [labels] array per row.

    Raises:
        RuntimeFault: The logits are not finite.
    """
    if not encoded.rows:
        return ()
    check_finite(spec.name, logits)
    options = spec.options
    assert isinstance(options, TextOptions)
    normalize = log_sigmoid if options.multi_label else log_softmax
    scores = exp(normalize(np.stack(logits))).mean(axis=0)
    best = np.argsort(-scores, kind="stable")[: options.n_best].tolist()
    found = (Label(spec.labels[index], float(scores[index])) for index in best)
    if not options.multi_label:
        return tuple(found)
    return tuple(label for label in found if label.score > options.threshold)
