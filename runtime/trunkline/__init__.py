"""Trunkline: one encoder pass, every answer.

import trunkline
model = trunkline.load("bundle")
result = model.analyze("IBM opened an office in Bern.", questions=["Where did IBM open it?"])
"""

import os
from typing import TYPE_CHECKING

from trunkline.annotations import Answer, DocumentResult, Label, QuestionResult, Span
from trunkline.documents import Document, Question

if TYPE_CHECKING:
    from trunkline.model import Model, load

__version__ = "0.1.0"

# onnxruntime, since 1.29, reports to its maker from a thread of its own, and may abort a process
# that ends meanwhile. It heeds this when it is first imported; a value set already stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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


def __getattr__(name: str) -> object:
    """Loads what runs models when it is first asked for: clients need no onnxruntime."""
    if name not in {"Model", "load"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trunkline import model

    return getattr(model, name)
