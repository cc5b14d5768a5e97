import math

import pytest
import torch
from torch import Tensor

from tests.small import wordpiece
from trunkline.encode import TextEncoder
from trunkline.tasks import AnswerOptions, TaskSpec, TokenOptions
from trunkline_train.data.examples import AnswerExample, Example, token_example
from trunkline_train.features import IGNORE, build_features
from trunkline_train.loop import collate
from trunkline_train.model.heads import HEADS, Head

NER = TaskSpec(
    "ner", "token-classification", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), TokenOptions()
)
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
HIDDEN = 16
CPU = torch.device("cpu")


def head(spec: TaskSpec) -> Head:
    torch.manual_seed(0)
    made = HEADS[spec.kind](spec, HIDDEN, 0.0)
    torch.nn.init.normal_(made.linear.weight)
    return made.eval()


def examples(spec: TaskSpec) -> list[Example]:
    """Returns a short and a long one."""
    if spec is QA:
        context = "Ada lives in Bern . " * 6
        return [
            AnswerExample("1", "Where ?", text, ("Bern",), (13,), "here")
            for text in (context[:19], context)
        ]
    short = [("Ada", "B-PER"), ("met", "O"), ("Mia", "B-PER")]
    return [
        token_example([word for word, _ in one], [tag for _, tag in one], "here")
        for one in (short, short * 3)
    ]


def loss(spec: TaskSpec, chosen: list[Example], width: int = 0) -> Tensor:
    """Returns the loss of a batch whose hidden states follow from ids and positions."""
    encoder = TextEncoder(wordpiece(), 64, 16)
    inputs, targets = collate(build_features(spec, chosen, encoder), 0, CPU)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    extra = max(0, width - ids.shape[1])
    ids, mask = (torch.nn.functional.pad(one, (0, extra)) for one in (ids, mask))
    if "labels" in targets:
        labels = torch.nn.functional.pad(targets["labels"], (0, extra), value=IGNORE)
        targets = {**targets, "labels": labels}
    positions = torch.arange(ids.shape[1])
    hidden = torch.sin(ids[..., None] * torch.arange(1, HIDDEN + 1) + positions[:, None])
    made = head(spec)
    return made.loss(made(hidden), {**targets, "mask": mask}).detach()


@pytest.mark.parametrize("spec", [NER, QA], ids=lambda s: s.name)
def test_padding_does_not_change_the_loss(spec: TaskSpec) -> None:
    for example in examples(spec):
        assert loss(spec, [example], 200) == pytest.approx(float(loss(spec, [example])), rel=1e-5)


def test_a_question_weighs_the_same_in_any_batch() -> None:
    short, long = examples(QA)
    apart = (loss(QA, [short]) + loss(QA, [long])) / 2
    assert float(loss(QA, [short, long])) == pytest.approx(float(apart), rel=1e-5)


def test_a_labelled_unit_weighs_the_same_in_any_batch() -> None:
    short, long = examples(NER)
    units = [len(example.tags) for example in (short, long)]
    assert units[0] != units[1]
    apart = units[0] * loss(NER, [short]) + units[1] * loss(NER, [long])
    assert float(loss(NER, [short, long])) == pytest.approx(float(apart) / sum(units), rel=1e-5)


def test_a_batch_without_labels_costs_nothing_and_moves_nothing() -> None:
    made = head(NER)
    hidden = torch.randn(2, 5, HIDDEN)
    nothing = {"labels": torch.full((2, 5), IGNORE)}
    total = made.loss(made(hidden), nothing)
    assert float(total.detach()) == 0.0
    total.backward()
    assert made.linear.weight.grad is not None
    assert float(made.linear.weight.grad.abs().max()) == 0.0


def test_an_unsure_head_costs_the_logarithm_of_its_choices() -> None:
    made = head(NER)
    logits = (torch.zeros(1, 4, len(NER.labels)),)
    assert float(made.loss(logits, {"labels": torch.tensor([[0, 1, 2, IGNORE]])})) == pytest.approx(
        math.log(len(NER.labels))
    )
    made = head(QA)
    target = {"start": torch.tensor([1]), "end": torch.tensor([2])}
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    flat = (torch.zeros(1, 6), torch.zeros(1, 6))
    assert float(made.loss(flat, {**target, "mask": mask})) == pytest.approx(math.log(4))
