"""What a step's gradient is made of."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.small import Corpus, sentences, write_conll
from trunkline.errors import TrainingFault
from trunkline_train import loop
from trunkline_train.config import load_config
from trunkline_train.loop import Run
from trunkline_train.parallel import Workers
from trunkline_train.step import Stepper, StepResult

STILL = ("model.dropout=0", "model.hidden_dropout=0", "model.attention_dropout=0")
ONE_EACH = ("tasks.ner.limit={train=16, dev=4}", "tasks.qa.limit={train=16, dev=4}")


def prepared(corpus: Corpus, *changes: str) -> Run:
    torch.manual_seed(0)
    return loop._prepare(corpus.load(*STILL, *changes), Workers("cpu"), None)


def step(run: Run, number: int = 0) -> StepResult:
    workers = Workers("cpu")
    return Stepper(
        run.checkpoint, run.streams, mixer=run.mixer, balancer=run.balancer, workers=workers
    ).run(number)


def gradient(run: Run) -> torch.Tensor:
    parameters = run.checkpoint.model.parameters()
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def test_batches_of_a_step_add_up_to_the_mean_over_all_their_units(corpus: Corpus) -> None:
    """Sixteen rows of each task: as one batch each, or as two."""
    whole = prepared(corpus, *ONE_EACH, "tasks.ner.batch_size=16", "tasks.qa.batch_size=16")
    halves = prepared(corpus, *ONE_EACH, "mixing.batches_per_step=4")
    assert [stream.batches.per_pass for stream in halves.streams] == [2, 2]
    one, two = step(whole), step(halves)
    assert one.losses == pytest.approx(two.losses, rel=1e-4)
    assert one.tokens == two.tokens
    assert torch.allclose(gradient(whole), gradient(halves), atol=1e-5)


def test_looking_at_gradients_does_not_change_them(corpus: Corpus) -> None:
    plain, watched = prepared(corpus), prepared(corpus, "training.diagnose_steps=2")
    seen = step(watched)
    assert step(plain).norms == {}
    assert torch.allclose(gradient(plain), gradient(watched), atol=1e-6)
    assert set(seen.norms) == {"ner", "qa"}
    assert set(seen.cosines) == {"ner~qa"}
    assert all(norm > 0 for norm in seen.norms.values())
    assert -1.0 <= seen.cosines["ner~qa"] <= 1.0
    assert step(watched, 1).norms == {}


def tagging(corpus: Corpus, sources: Sequence[str]) -> list[str]:
    """Returns changes that make two tasks of tags, over these files."""
    changes = ["tasks.qa.options={}", "tasks.qa.kind=token-classification", "tasks.qa.column=-1"]
    changes += ["tasks.qa.options.aggregation=tags", "tasks.qa.batch_size=8"]
    for name, source in zip(("ner", "qa"), sources, strict=True):
        changes += [f"tasks.{name}.train={source}", f"tasks.{name}.dev={source}"]
    return changes


def test_a_document_of_several_tasks_goes_once_through_the_encoder(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    one, two = folder / "one.conll", folder / "two.conll"
    write_conll(one, sentences(16, 1))
    shutil.copy(one, two)
    passes = []
    for sets, other in enumerate((one, two), start=1):
        changes = tagging(corpus, (str(one), str(other)))
        run = prepared(corpus, f"mixing.batches_per_step={sets}", *changes)
        count: list[int] = []
        run.checkpoint.model.encoder.register_forward_hook(lambda *_, c=count: c.append(1))
        losses = step(run).losses
        assert set(losses) == {"ner", "qa"}
        passes.append(len(count))
    assert passes == [1, 2]


def test_memory_that_runs_out_is_told_with_the_batch_and_the_mend(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(corpus)
    before = [p.clone() for p in run.checkpoint.model.parameters()]

    def full(**inputs: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 60)  # what the allocator says of it is what is recognised

    monkeypatch.setattr(run.checkpoint.model, "hidden", full)
    told = (
        r"^step 1: a batch of ner, \d rows of \d\d tokens, does not fit in memory; .*batch_size.*$"
    )
    with pytest.raises(TrainingFault, match=told):
        step(run)
    assert run.checkpoint.progress.drawn == {}
    assert all(
        torch.equal(*pair) for pair in zip(before, run.checkpoint.model.parameters(), strict=True)
    )


def test_dropout_follows_from_the_step(corpus: Corpus) -> None:
    run = prepared(corpus, "model.dropout=0.3")
    drawn = dict(run.checkpoint.progress.drawn)
    first = step(run, 4).losses
    torch.rand(7)
    run.checkpoint.progress.drawn = drawn
    run.checkpoint.model.zero_grad()
    assert step(run, 4).losses == first
    run.checkpoint.progress.drawn = drawn
    assert step(run, 5).losses != first


UNCLIPPED = ("training.clip_norm=1e9", "mixing.batches_per_step=1")


def test_other_data_sets_do_not_lengthen_the_gradient_of_a_batch(corpus: Corpus) -> None:
    """Clipping looks at that length: what it cuts must not depend on them."""
    names = ("ner", "qa", "topic", "names")
    lengths = []
    for some in (names[:1], names):
        torch.manual_seed(0)
        config = load_config(corpus.every, [*STILL, *UNCLIPPED])
        config = replace(config, tasks={name: config.tasks[name] for name in some})
        run = loop._prepare(config, Workers("cpu"), None)
        assert set(step(run).losses) == {"ner"}
        # Heads are drawn after the encoder, the first task's first: both models hold the same.
        lengths.append(float(gradient(run).norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


def batches_per_step(corpus: Corpus, *changes: str) -> int:
    return prepared(corpus, "mixing={}", *changes).mixer.draws


def test_a_step_is_one_batch_unless_tasks_are_weighed(corpus: Corpus) -> None:
    assert batches_per_step(corpus) == 1
    assert batches_per_step(corpus, "tasks.ner.weight=2") == 2
    assert batches_per_step(corpus, "balancing.method=gradnorm") == 2
    assert batches_per_step(corpus, "balancing.method=gradnorm", "mixing.batches_per_step=3") == 3
