"""The whole training loop: read, step, evaluate, save, resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.optim import AdamW

from trunkline.errors import DataError, TrainingFault
from trunkline.tasks import TaskSpec
from trunkline_train.balancing import BALANCERS, Balancer
from trunkline_train.card import write_card
from trunkline_train.checkpoint import (
    Checkpoint,
    Origin,
    Progress,
    load_checkpoint,
    load_state,
    resumable,
    save_checkpoint,
)
from trunkline_train.config import Config
from trunkline_train.data.examples import Example
from trunkline_train.data.reader import amount
from trunkline_train.distill import attach_teacher
from trunkline_train.evaluate import evaluate, tuned
from trunkline_train.features.cache import data_fingerprint
from trunkline_train.features.load import LoadedTask, load_task
from trunkline_train.interrupt import watch_signals
from trunkline_train.mixing import Mixer
from trunkline_train.model.layers import recompute_activations
from trunkline_train.model.lora import add_lora
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.optimizer import parameter_groups, peak_rates, schedule
from trunkline_train.parallel import Workers
from trunkline_train.paths import cache_folder
from trunkline_train.place import BEST, LAST, check_place, clear_run
from trunkline_train.pretrained import load_pretrained, text_encoder
from trunkline_train.report import Report
from trunkline_train.scores import Scores
from trunkline_train.step import Stepper, StepResult
from trunkline_train.streams import Features, Stream, build_streams


@dataclass(frozen=True)
class Run:
    """State of a run.

    Attributes:
        checkpoint: Model and progress.
        specs: The tasks as configured; the model's copies may have tuned thresholds.
        dev: Examples scored after each epoch, by task.
        streams: The data sets.
        mixer: Chooses the data sets of each step.
        balancer: Weights the losses.
        optimizer: Optimiser of the trained parameters.
    """

    checkpoint: Checkpoint
    specs: Sequence[TaskSpec]
    dev: Mapping[str, list[Example]]
    streams: Sequence[Stream]
    mixer: Mixer
    balancer: Balancer
    optimizer: AdamW


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> Checkpoint:
    """Trains a model and returns the checkpoint with the best mean dev score.

    Writes `last/` (resumable) and `best/` checkpoints, the log, curves and a model card into `out`.

    Args:
        config: The training configuration.
        out: Folder of the run; must not hold one unless `resume` or `overwrite` is true.
        resume: Continue from `out/last`, exactly where it stopped.
        overwrite: Replace the run in `out`, once all data is read.
        on_step: Called after each optimiser step with its number of real tokens.

    Raises:
        ConfigError: The configuration does not fit the model, or the run exists.
        DataError: A data file is missing or broken.
        CheckpointError: There is nothing to resume, or it is broken.
        TrainingFault: Training cannot go on; the last good state is in `out/last`.
    """
    check_place(out, resume=resume, overwrite=overwrite)
    workers = Workers(config.training.device)
    torch.manual_seed(config.training.seed)
    run = _prepare(config, workers, out / LAST if resume else None)
    progress, mixer = run.checkpoint.progress, run.mixer
    stepper = Stepper(
        run.checkpoint, run.streams, mixer=mixer, balancer=run.balancer, workers=workers
    )
    factor = schedule(mixer.total, config.training.warmup)
    if overwrite and workers.leads:
        clear_run(out)
    with (
        watch_signals(workers.count) as stopping,
        Report(out, mixer.total, progress, workers.leads) as report,
    ):
        _introduce(run, report)
        while progress.step < mixer.total and not _stale(run):
            rate = _set_rates(run.optimizer, factor(progress.step))
            result = _step(run, stepper, out, workers)
            report.step(result.losses, result.weights, result.tokens, rate)
            if on_step is not None:
                on_step(result.tokens)
            if result.norms:
                report.gradients(result.norms, result.cosines)
            ended = progress.step % mixer.steps_per_epoch == 0
            if ended:
                scores = _evaluate(run, workers)
                report.epoch(progress.step // mixer.steps_per_epoch, scores)
                _keep_best(run, out, scores, workers)
            # All processes must save or stop together, so they agree once per step.
            stop = workers.any(stopping())
            if ended or stop or progress.step % config.training.save_steps == 0:
                _save_last(run, out, workers)
            if stop:
                report.say(f"stopped after step {progress.step}; --resume goes on from here")
                raise KeyboardInterrupt
        report.warn()
    best = load_checkpoint(out / BEST)
    if workers.leads:
        write_card(out, best, _rows(run), workers.device, workers.count)
    return best


def _prepare(config: Config, workers: Workers, last: Path | None) -> Run:
    """Reads all data, and builds a new model or loads it from the checkpoint `last`."""
    saved = None if last is None else load_checkpoint(last)
    commit = "" if saved is None else saved.origin.commit
    pretrained = load_pretrained(config.encoder, config.model, commit)
    encoder = text_encoder(pretrained, config.rows)
    cache = cache_folder(config.training.cache)
    tasks = [load_task(name, task, encoder, cache) for name, task in config.tasks.items()]
    specs = [task.spec for task in tasks]
    model = MultitaskModel(pretrained.encoder, specs, config.model.dropout)
    add_lora(model, config.model)
    data = {name: data_fingerprint(task) for name, task in config.tasks.items()}
    origin = Origin(pretrained.commit, data)
    checkpoint = Checkpoint(model, encoder, pretrained.pad_id, config, Progress(), origin)
    if last is not None and saved is not None:
        checkpoint = resumable(last, saved, checkpoint)
    checkpoint.model.to(workers.device)
    _set_up(checkpoint.model, config)
    features = {task.spec.name: _features(task, checkpoint, cache, workers) for task in tasks}
    streams = build_streams(specs, features, config)
    run = Run(
        checkpoint,
        specs,
        {task.spec.name: task.dev for task in tasks},
        streams,
        make_mixer(config, streams),
        BALANCERS[config.balancing.method](list(features), config.balancing),
        AdamW(parameter_groups(checkpoint.model, config.training), fused=True),
    )
    if last is not None:
        run.balancer.restore(checkpoint.progress.balancer)
        load_state(last, run.optimizer)
    return run


def _step(run: Run, stepper: Stepper, out: Path, workers: Workers) -> StepResult:
    """Does one optimiser step; if that fails, saves the state before it."""
    progress = run.checkpoint.progress
    try:
        result = stepper.run(progress.step)
    except TrainingFault:
        if workers.count == 1:  # others may not have failed; saving would wait
            _save_last(run, out, workers)
        raise
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    return result


def _set_up(model: MultitaskModel, config: Config) -> None:
    if config.training.gradient_checkpointing:
        recompute_activations(model.encoder)
    if config.training.compile:
        model.encoder.compile(dynamic=True)


def _features(
    task: LoadedTask, checkpoint: Checkpoint, cache: Path | None, workers: Workers
) -> Features:
    settings = checkpoint.config.tasks[task.spec.name]
    if not len(task.features):
        raise DataError(settings.sources("train")[0], "holds no text to train on")
    if settings.teacher is None:
        return task.features
    attach = partial(
        attach_teacher,
        task.spec,
        settings.teacher,
        task.features,
        checkpoint.encoder,
        cache=cache,
        device=workers.device,
    )
    features = attach() if workers.leads else None
    workers.share(None)  # the other processes read the first one's result from the cache
    return features or attach()


def make_mixer(config: Config, streams: Sequence[Stream]) -> Mixer:
    """Creates the mixer of a run."""
    ratios = config.mixing.ratios
    # Smaller steps learn more per token (docs/adr/0005), but weighting needs several tasks a step.
    default = len(streams) if config.weighed else 1
    return Mixer(
        config.mixing,
        [stream.batches.per_pass for stream in streams],
        draws=config.mixing.batches_per_step or default,
        ratios=[sum(ratios.get(task, 0.0) for task in stream.tasks) for stream in streams],
        epochs=config.training.epochs,
        least=config.training.min_steps,
        seed=config.training.seed,
    )


def _rows(run: Run) -> dict[str, int]:
    """Returns the number of training rows by task."""
    return {task: stream.rows(task) for stream in run.streams for task in stream.tasks}


def _introduce(run: Run, report: Report) -> None:
    for stream in run.streams:
        names = " + ".join(stream.tasks)
        report.say(f"  {names}: {len(stream)} rows, {stream.batches.per_pass} batches a pass")
    rate, head_rate = peak_rates(run.checkpoint.model, run.checkpoint.config.training)
    mixer = run.mixer
    passes = f" of {mixer.passes} passes" if mixer.passes > 1 else ""
    length = f"{amount(mixer.epochs, 'epoch')}{passes}, {amount(mixer.total, 'step')}"
    report.say(f"  {length}; rates up to {rate:.2g}, of the heads {head_rate:.2g}")


def _set_rates(optimizer: AdamW, factor: float) -> float:
    """Scales all learning rates from their peaks; returns the encoder's."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
    return float(optimizer.param_groups[0]["lr"])


def _stale(run: Run) -> bool:
    patience = run.checkpoint.config.training.patience
    return patience is not None and run.checkpoint.progress.stale >= patience


def _evaluate(run: Run, workers: Workers) -> dict[str, Scores]:
    """Tunes any thresholds, and scores every task on its dev examples."""
    if not workers.leads:
        return workers.share({})
    scores = {}
    specs = []
    for spec in run.specs:
        pipeline = run.checkpoint.pipeline()
        specs.append(tuned(spec, pipeline, run.dev[spec.name]))
        run.checkpoint.model.tasks = (*specs, *run.specs[len(specs) :])
        scores[spec.name] = evaluate(specs[-1], run.checkpoint.pipeline(), run.dev[spec.name])
    return workers.share(scores)


def _keep_best(run: Run, out: Path, scores: Mapping[str, Scores], workers: Workers) -> None:
    """Records the scores, and saves the model if its mean or a task's score is the best so far."""
    progress = run.checkpoint.progress
    mean = sum(score.value for score in scores.values()) / len(scores)
    before = progress.by_task
    better = [name for name, score in scores.items() if score.value > before.get(name, -1.0)]
    progress.by_task = before | {name: scores[name].value for name in better}
    progress.stale += 1
    if progress.best is None or mean > progress.best:
        progress.best, progress.stale = mean, 0
        if workers.leads:
            save_checkpoint(out / BEST, run.checkpoint)
    for name in better if run.checkpoint.config.training.best_per_task else ():
        if workers.leads:
            save_checkpoint(out / f"{BEST}-{name}", run.checkpoint)


def _save_last(run: Run, out: Path, workers: Workers) -> None:
    run.checkpoint.progress.balancer = run.balancer.state()
    if workers.leads:
        save_checkpoint(out / LAST, run.checkpoint, run.optimizer)
    workers.share(None)
