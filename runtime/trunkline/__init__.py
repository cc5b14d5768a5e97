"""Trunkline: one encoder pass, every answer.

import trunkline
model = trunkline.load("bundle")
result = model.analyze("IBM opened an office in Bern.", questions=["Where did IBM open it?"])
"""

from trunkline.annotations import Answer, DocumentResult, Label, QuestionResult, Span
from trunkline.model import Model, load
from trunkline.pipeline import Document, Question

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Document",
    "DocumentResult",
    "Label",
    "Model",
    "Question",
    "QuestionResult",
    "Span",
    "__version__",
    "load",
]
