"""A new kind of task is a registry entry in each room; these name what is missing."""

import pytest
import torch

from trunkline.kinds import KINDS
from trunkline.tasks import TaskSpec
from trunkline_serve.rpc.converters import ANNOTATIONS
from trunkline_train.baseline import GUESSES
from trunkline_train.data.source import READERS
from trunkline_train.evaluate import SCORERS
from trunkline_train.features.build import BUILDERS
from trunkline_train.model.heads import HEADS

REGISTRIES = {
    "HEADS": HEADS,
    "BUILDERS": BUILDERS,
    "READERS": READERS,
    "SCORERS": SCORERS,
    "GUESSES": GUESSES,
}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_kind_has_an_entry(registry: str) -> None:
    assert set(REGISTRIES[registry]) == set(KINDS)


def test_every_kind_has_a_message() -> None:
    # Answers travel with their question, whatever task gave them.
    assert set(ANNOTATIONS) == {name for name, kind in KINDS.items() if not kind.asks}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_head_gives_what_the_kind_declares(kind) -> None:
    labelled = any("labels" in axes for axes in kind.suffixes.values())
    labels = ("O", "B-X", "I-X") if labelled else ()
    head = HEADS[kind.name](TaskSpec("t", kind.name, labels, kind.options()), 8, 0.0)
    outputs = head(torch.zeros(2, 5, 8))
    sizes = {"sequence": 5, "labels": len(labels)}
    expected = [(2, *(sizes[axis] for axis in axes)) for axes in kind.suffixes.values()]
    assert [tuple(output.shape) for output in outputs] == expected
