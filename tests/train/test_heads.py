import math

import numpy as np
import pytest
import torch

from tests.small import wordpiece
from trunkline.encode import TextEncoder
from trunkline.kinds import task_outputs
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_train.data.examples import AnswerExample, Example, TextExample, token_example
from trunkline_train.features.build import Feature, build_features
from trunkline_train.features.targets import IGNORE, MASK, TEACHER
from trunkline_train.model.heads import HEADS, Head
from trunkline_train.streams import Batch, Stream

NER = TaskSpec(
    "ner", "token-classification", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), TokenOptions()
)
QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
TOPIC = TaskSpec("topic", "text-classification", ("x", "y"), TextOptions())
TAGS = TaskSpec("tags", "text-classification", ("x", "y"), TextOptions(multi_label=True))
ALL = (NER, QA, TOPIC, TAGS)
HIDDEN = 16


def head(spec: TaskSpec) -> Head:
    torch.manual_seed(0)
    made = HEADS[spec.kind](spec, HIDDEN, 0.0)
    torch.nn.init.normal_(made.linear.weight)
    return made.eval()


def examples(spec: TaskSpec) -> list[Example]:
    """Returns a short and a long one."""
    context = "Ada lives in Bern . " * 6
    if spec is QA:
        return [
            AnswerExample("1", "Where ?", text, ("Bern",), (13,), "here")
            for text in (context[:19], context)
        ]
    if spec in {TOPIC, TAGS}:
        return [
            TextExample(context[:19], None, ("x",), "here"),
            TextExample(context, None, ("y",), ""),
        ]
    short = [("Ada", "B-PER"), ("met", "O"), ("Mia", "B-PER")]
    return [
        token_example([word for word, _ in one], [tag for _, tag in one], "here")
        for one in (short, short * 3)
    ]


class Table(list[Feature]):
    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(feature.row) for feature in self])


def batch(spec: TaskSpec, chosen: list[Example], *, taught: bool = False) -> Batch:
    """Returns the examples as one batch, in some order; a teacher's outputs follow from the row."""
    table = Table(build_features(spec, chosen, TextEncoder(wordpiece(), 64, 16)))
    for feature in table if taught else ():
        for output in task_outputs(spec):
            of_token = "sequence" in output.axes
            shape = [len(feature.row)] * of_token + [len(spec.labels)] * ("labels" in output.axes)
            values = np.random.default_rng(len(feature.row)).normal(size=shape)
            feature.targets[TEACHER + output.name.split(".")[1]] = values.astype(np.float32)
    return Stream([spec], {spec.name: table}, size=len(table), seed=(0,)).batch(0, 0, 64)


def losses(spec: TaskSpec, given: Batch, width: int = 0) -> tuple[float, float, float]:
    """Returns units, loss and divergence of hidden states that follow from ids and positions."""
    ids, targets = given.inputs["input_ids"], dict(given.parts[spec.name].targets)
    extra = max(0, width - ids.shape[1])
    for name in (MASK, "labels", *(n for n in targets if n.startswith(TEACHER))):
        if name in targets and targets[name].shape[1:2] == ids.shape[1:]:
            value = IGNORE if name == "labels" else 0
            padding = [0, 0] * (targets[name].ndim - 2) + [0, extra]
            targets[name] = torch.nn.functional.pad(targets[name], padding, value=value)
    ids = torch.nn.functional.pad(ids, (0, extra))
    positions = torch.arange(ids.shape[1])
    hidden = torch.sin(ids[..., None] * torch.arange(1, HIDDEN + 1) + positions[:, None])
    made = head(spec)
    outputs = made(hidden)
    taught = any(name.startswith(TEACHER) for name in targets)
    divergence = float(made.distill(outputs, targets, 2.0).detach()) if taught else 0.0
    return float(made.units(targets)), float(made.loss(outputs, targets).detach()), divergence


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_padding_changes_nothing(spec: TaskSpec) -> None:
    for example in examples(spec):
        given = batch(spec, [example], taught=True)
        assert losses(spec, given, 200) == pytest.approx(losses(spec, given), rel=1e-4)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_sums_over_examples_are_the_sums_of_a_batch(spec: TaskSpec) -> None:
    both = losses(spec, batch(spec, examples(spec), taught=True))
    apart = [losses(spec, batch(spec, [one], taught=True)) for one in examples(spec)]
    assert both == pytest.approx(tuple(map(sum, zip(*apart, strict=True))), rel=1e-4)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_what_nobody_labelled_costs_and_moves_nothing(spec: TaskSpec) -> None:
    given = batch(spec, examples(spec), taught=True)
    targets = dict(given.parts[spec.name].targets)
    for name in targets.keys() & {"labels", "label", "start", "end"}:
        targets[name] = torch.full_like(targets[name], IGNORE)
    made = head(spec)
    outputs = made(torch.randn(*given.shape, HIDDEN))
    total = made.loss(outputs, targets)
    assert float(total.detach()) == float(made.units(targets)) == 0.0
    total.backward()
    assert float(made.linear.weight.grad.abs().max()) == 0.0


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_a_student_like_its_teacher_has_nothing_to_learn(spec: TaskSpec) -> None:
    given = batch(spec, examples(spec))
    made = head(spec)
    outputs = made(torch.randn(*given.shape, HIDDEN))
    targets = dict(given.parts[spec.name].targets)
    for output, values in zip(task_outputs(spec), outputs, strict=True):
        targets[TEACHER + output.name.split(".")[1]] = values.detach()
    if spec is TAGS:  # cross entropy against soft labels never gets to zero, only to its minimum
        loss = made.distill(outputs, targets, 3.0)
        (gradient,) = torch.autograd.grad(loss, made.linear.bias)
        assert float(gradient.abs().max()) < 1e-6
    else:
        assert float(made.distill(outputs, targets, 3.0).detach()) == pytest.approx(0.0, abs=1e-4)


def test_an_unsure_head_costs_the_logarithm_of_its_choices() -> None:
    logits = (torch.zeros(1, 4, len(NER.labels)),)
    given = {"labels": torch.tensor([[0, 1, 2, IGNORE]])}
    assert float(head(NER).loss(logits, given)) == pytest.approx(3 * math.log(len(NER.labels)))
    target = {"start": torch.tensor([1]), "end": torch.tensor([2])}
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    flat = (torch.zeros(1, 6), torch.zeros(1, 6))
    assert float(head(QA).loss(flat, {**target, MASK: mask})) == pytest.approx(math.log(4))
    unsure = (torch.zeros(2, 2),)
    assert float(head(TOPIC).loss(unsure, {"label": torch.tensor([0, 1])})) == pytest.approx(
        2 * math.log(2)
    )
    many = {"labels": torch.tensor([[0, 1], [1, 1]])}
    assert float(head(TAGS).loss(unsure, many)) == pytest.approx(2 * math.log(2))
