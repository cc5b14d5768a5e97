"""One optimiser step's gradients: several batches, one loss per task, one sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trunkline.errors import TrainingFault
from trunkline_train.balancing import Balancer
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.features.targets import TEACHER
from trunkline_train.gradients import TaskGradients, compare, shared_parameters
from trunkline_train.hardware import use_bf16
from trunkline_train.mixing import Mixer
from trunkline_train.parallel import Workers
from trunkline_train.streams import Batch, Part, Stream

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Scale:
    """What a task's summed losses are multiplied with: to be a mean, and then by its weight."""

    mean: float
    weight: float


@dataclass(frozen=True)
class StepResult:
    """What a step gave.

    Attributes:
        losses: Mean loss per labelled unit, of the tasks that took part.
        weights: Their factors.
        tokens: Real tokens of all processes.
        norms, cosines: Of the tasks' gradients, where they were looked at.
    """

    losses: dict[str, float]
    weights: dict[str, float]
    tokens: int
    norms: dict[str, float]
    cosines: dict[str, float]


class Stepper:
    """Computes the gradient of a step.

    The loss of a step is the sum over tasks of weight times mean loss, the mean taken over all
    labelled units of the step, whatever batch they came in. A task drawn more often than others
    counts accordingly. Everything follows from the step's number and `Progress.drawn`.

    Args:
        checkpoint: Model and progress.
        streams: The data sets.
        mixer: Draws them.
        balancer: Weighs the losses.
        workers: The processes of the run.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        streams: Sequence[Stream],
        *,
        mixer: Mixer,
        balancer: Balancer,
        workers: Workers,
    ) -> None:
        self._checkpoint = checkpoint
        self._config = checkpoint.config
        self._streams = streams
        self._mixer = mixer
        self._balancer = balancer
        self._workers = workers
        self._trained = [p for p in checkpoint.model.parameters() if p.requires_grad]
        kind = workers.device.type
        bf16 = use_bf16(self._config.training.precision, workers.device)
        self._precision = torch.autocast(kind, torch.bfloat16, enabled=bf16)

    def run(self, step: int) -> StepResult:
        """Leaves the step's clipped gradient on the parameters.

        Raises:
            TrainingFault: A loss or gradient is not finite, or memory ran out; no weight changed.
        """
        training = self._config.training
        self._checkpoint.model.train()
        # Dropout follows from the step: a resumed run needs no saved random state.
        torch.manual_seed(_seed(training.seed, step, self._workers.rank))
        batches, drawn = self._draw(step)
        weights = self._balancer.weights()
        scales = self._scales(batches, weights)
        losses = {task: torch.zeros((), device=self._workers.device) for task in scales}
        watch = self._watch(step, list(scales))
        for batch in batches:
            mine = batch.share(self._workers.rank, self._workers.count)
            if mine is not None:
                self._add(mine.to(self._workers.device), step, scales, losses, watch)
        self._add_up(losses, watch)
        means = {task: float(loss) for task, loss in losses.items()}
        for task, loss in means.items():
            if not math.isfinite(loss):
                raise _not_finite(step, f"the loss of task {task!r} is {loss}")
        norms, cosines = self._combine(watch, scales)
        norm = torch.nn.utils.clip_grad_norm_(self._trained, training.clip_norm)
        if not torch.isfinite(norm):
            raise _not_finite(step, f"the gradient of {', '.join(means)} is {float(norm)}")
        self._balancer.observe(means)
        self._checkpoint.progress.drawn = drawn
        tokens = sum(batch.tokens for batch in batches)
        return StepResult(means, {task: weights[task] for task in means}, tokens, norms, cosines)

    def _draw(self, step: int) -> tuple[list[Batch], dict[str, int]]:
        """Returns the step's batches, and how many of each data set will then have been drawn."""
        checkpoint, drawn = self._checkpoint, dict(self._checkpoint.progress.drawn)
        batches = []
        for index in self._mixer.at(step):
            name = "+".join(self._streams[index].tasks)
            number = drawn.get(name, 0)
            drawn[name] = number + 1
            most = checkpoint.encoder.max_length
            batches.append(self._streams[index].batch(number, checkpoint.pad_id, most))
        return batches, drawn

    def _scales(self, batches: Sequence[Batch], weights: Mapping[str, float]) -> dict[str, Scale]:
        """Returns by task what its summed losses are multiplied with."""
        units: dict[str, int] = {}
        draws: dict[str, int] = {}
        for batch in batches:
            for task, part in batch.parts.items():
                count = int(self._checkpoint.model.head(task).units(part.targets))
                units[task] = units.get(task, 0) + count
                draws[task] = draws.get(task, 0) + 1
        # An equal share is so many batches; of fewer batches than data sets it is one of some, so
        # that a step of one batch is clipped as what it is, however many other data sets there are.
        equal = len(batches) / min(len(batches), len(self._streams))
        return {
            task: Scale(
                1.0 / max(1, count),
                self._config.tasks[task].weight * weights[task] * draws[task] / equal,
            )
            for task, count in units.items()
        }

    def _watch(self, step: int, tasks: Sequence[str]) -> TaskGradients | None:
        every = self._config.training.diagnose_steps
        if not self._balancer.gradients and not (every and step % every == 0):
            return None
        scope = self._balancer.gradients or "all"
        return TaskGradients(shared_parameters(self._checkpoint.model, scope), tasks)

    def _add(
        self,
        batch: Batch,
        step: int,
        scales: Mapping[str, Scale],
        losses: dict[str, Tensor],
        watch: TaskGradients | None,
    ) -> None:
        """Adds a batch's gradients, and its losses to those of the step."""
        try:
            with self._precision:
                hidden = self._checkpoint.model.hidden(**batch.inputs)
            terms = {}
            for task, part in batch.parts.items():
                mean = scales[task].mean * self._loss(task, part, hidden, step)
                losses[task] += mean.detach()
                terms[task] = scales[task].weight * mean
            if watch is None:
                torch.stack(list(terms.values())).sum().backward()
                return
            for number, (task, term) in enumerate(terms.items(), start=1):
                term.backward(retain_graph=number < len(terms))
                watch.take(task)
        except RuntimeError as error:  # CUDA's own error is one of these
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise _too_large(step, batch) from None
            raise

    def _loss(self, task: str, part: Part, hidden: Tensor, step: int) -> Tensor:
        """Returns a task's loss summed over a batch, the teacher's share included."""
        head = self._checkpoint.model.head(task)
        rows = hidden if part.rows is None else hidden[part.rows]
        with self._precision:
            outputs = head(rows)
        outputs = tuple(output.float() for output in outputs)
        if not any(name.startswith(TEACHER) for name in part.targets):
            return head.loss(outputs, part.targets)
        settings = self._config.distillation
        done = step / max(1, self._mixer.total - 1)
        share = settings.share + (settings.final_share - settings.share) * done
        gold = head.loss(outputs, part.targets)
        taught = head.distill(outputs, part.targets, settings.temperature)
        return (1.0 - share) * gold + share * taught

    def _add_up(self, losses: Mapping[str, Tensor], watch: TaskGradients | None) -> None:
        """Adds up losses and gradients over all processes."""
        if self._workers.count == 1:
            return
        model = self._checkpoint.model
        modules = [model.encoder, *(model.head(task) for task in losses)]
        held = set() if watch is None else {id(p) for p in watch.parameters}
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._workers.add_up_gradients([p for p in trained if id(p) not in held])
        self._workers.add_up([*losses.values(), *([] if watch is None else watch.by_task.values())])

    def _combine(
        self, watch: TaskGradients | None, scales: Mapping[str, Scale]
    ) -> tuple[dict[str, float], dict[str, float]]:
        if watch is None:
            return {}, {}
        found = compare(watch.by_task)
        weights = {task: scale.weight for task, scale in scales.items()}
        watch.give_back(self._balancer.combine(watch.by_task, weights))
        return found


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _not_finite(step: int, what: str) -> TrainingFault:
    mend = "lower training.learning_rate, or look at the task's data"
    return TrainingFault(f"step {step + 1}: {what}; {mend}")


def _too_large(step: int, batch: Batch) -> TrainingFault:
    rows, width = batch.shape
    names = " and ".join(batch.parts)
    mend = "lower its batch_size, set training.batch_tokens, or training.gradient_checkpointing"
    return TrainingFault(
        f"step {step + 1}: a batch of {names}, {rows} rows of {width} tokens, does not fit in "
        f"memory; {mend}"
    )
