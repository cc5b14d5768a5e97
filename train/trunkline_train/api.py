"""Training from Python, by the same path as from a configuration.

from trunkline_train import Task, corpora, train

model = train(
    [Task("pos", corpora.ud_english()), Task("chunk", corpora.conll_2000())],
    encoder="distilbert/distilbert-base-uncased",
    out="runs/pos-chunk",
)
print(model.analyze("Mr Smith loves New York"))
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import ConfigError, did_you_mean
from trunkline.extras import explained
from trunkline.model import Model
from trunkline.pipeline import Pipeline
from trunkline_train.config import Config, parse_config
from trunkline_train.corpora import Corpus
from trunkline_train.paths import anchored
from trunkline_train.settings import (
    BalancingConfig,
    DistillationConfig,
    MixingConfig,
    ModelConfig,
    RowsConfig,
    TrainingConfig,
)

_SPLITS = ("dev", "test")

if TYPE_CHECKING:
    from trunkline_train.checkpoint import Checkpoint
    from trunkline_train.scores import Scores

_SECTIONS = {
    "rows": RowsConfig,
    "model": ModelConfig,
    "mixing": MixingConfig,
    "balancing": BalancingConfig,
    "distillation": DistillationConfig,
    "training": TrainingConfig,
}
_SOURCE = "train"  # what errors call the configuration
_LONGEST = 200  # characters of a message about tasks
DEFAULT_ENCODER = "distilbert/distilbert-base-uncased"


class Task:
    """One task of a model.

    Args:
        name: Of the task, in results and logs; lower case.
        corpus: What it learns from.
        weight: Factor of its mean loss.
        batch_size: Rows per batch.
        teacher: A run or checkpoint with a task of this name, whose logits are learned too.
        options: Decode defaults, by kind: `n_best=3`, `threshold=0.3`, ...
    """

    def __init__(
        self,
        name: str,
        corpus: Corpus,
        *,
        weight: float = 1.0,
        batch_size: int = 16,
        teacher: str | Path | None = None,
        **options: object,
    ) -> None:
        if not isinstance(corpus, Corpus):
            mend = "give a Corpus, e.g. corpora.squad()"
            raise ConfigError(f"task {name!r}: {mend}, not {type(corpus).__name__}")
        self.name = name
        self.corpus = corpus
        self.weight = weight
        self.batch_size = batch_size
        self.teacher = teacher
        self.options = options

    def table(self) -> dict[str, Any]:
        """Returns the task as it would stand in a configuration."""
        table = self.corpus.table()
        return {
            **table,
            "options": {**table["options"], **self.options} if self.options else table["options"],
            "weight": self.weight,
            "batch_size": self.batch_size,
            "teacher": str(self.teacher) if isinstance(self.teacher, Path) else self.teacher,
        }


class TrainedModel:
    """A trained model: analyses texts as a bundle would, through torch.

    Attributes:
        pipeline: From text to results.
        checkpoint: Folder of its checkpoint, to evaluate, export or teach with.
        scores: By task, the metrics on its dev split; empty if the run's log is not at hand.
    """

    def __init__(self, loaded: Checkpoint, folder: Path, scores: Mapping[str, Any]) -> None:
        self.pipeline: Pipeline = loaded.pipeline()
        self.checkpoint = folder
        self.scores: Mapping[str, Mapping[str, float]] = scores
        self._config = loaded.config

    analyze = Model.analyze

    def evaluate(self, split: str = "test") -> dict[str, Scores]:
        """Returns each task's scores on `dev` or `test`, by the official rules.

        Raises:
            ConfigError: There is no split of that name.
            DataError: A task has no such split, or it cannot be read.
        """
        if split not in _SPLITS:
            raise ConfigError(f"split: expected one of {', '.join(_SPLITS)}, got {split!r}")
        from trunkline_train.data.source import load_test
        from trunkline_train.evaluate import evaluate

        return {
            name: evaluate(spec, self.pipeline, load_test(self._config.tasks[name], split))
            for name, spec in self.pipeline.tasks.items()
        }


def train(
    tasks: Sequence[Task],
    *,
    out: str | Path,
    encoder: str | Path = DEFAULT_ENCODER,
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> TrainedModel:
    """Trains one model for several tasks.

    Args:
        tasks: With their corpora; names must differ.
        out: Folder of the run: checkpoints, log, curves, model card.
        encoder: A folder, a run of Trunkline, or NAME or NAME@REVISION on the Hugging Face hub.
        resume: Go on with the run in `out`, exactly where it stopped.
        overwrite: Replace the run in `out`; one that is there is refused otherwise.
        settings: Those of a configuration, by name (`epochs=5, sampler="temperature"`), or whole
            sections (`mixing={"sampler": "temperature", "temperature": 5}`).

    Returns:
        The best model by the mean of the tasks' dev scores.

    Raises:
        ConfigError: A setting is unknown or unfit, or the folder holds another run.
        DataError: A corpus is missing or broken.
        TrainingFault: Training cannot go on; the last good state is in `out`.
    """
    for name, value in (("resume", resume), ("overwrite", overwrite)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: expected bool, got {value!r}")
    out = check_folder("out", out)
    config = configure(tasks, name=out.name, encoder=encoder, settings=settings)
    # torch takes seconds to load: a wrong setting is told before.
    try:
        from trunkline_train.loop import train as run
    except ModuleNotFoundError as error:
        raise explained(error, "train") from None

    run(config, out, resume=resume, overwrite=overwrite)
    return load(out)


def load(folder: str | Path) -> TrainedModel:
    """Loads the best model of a run's folder, or a checkpoint.

    Raises:
        CheckpointError: It is missing or broken.
    """
    try:
        from trunkline_train.checkpoint import load_checkpoint
    except ModuleNotFoundError as error:
        raise explained(error, "train") from None

    folder = check_folder("folder", folder)
    loaded = load_checkpoint(folder)
    best = folder / "best"
    place = best if best.exists() else folder
    return TrainedModel(loaded, place, _dev_scores(place.parent, loaded.progress.step))


def configure(
    tasks: Sequence[Task], *, name: str, encoder: str | Path, settings: Mapping[str, Any]
) -> Config:
    """Returns the configuration that a file with the same values would give.

    Raises:
        ConfigError: Two tasks share a name, or a setting is unknown, ambiguous or unfit.
    """
    _check_tasks(tasks)
    counts = Counter(task.name for task in tasks)
    twice = [task for task, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(f"{_SOURCE}: two tasks are named {twice[0]!r}; names must differ")
    data = {
        "name": name,
        "encoder": os.path.abspath(encoder) if isinstance(encoder, Path) else encoder,
        "tasks": {task.name: task.table() for task in tasks},
        **_by_section(settings),
    }
    return parse_config(anchored(data, Path.cwd()), _SOURCE)


def _check_tasks(tasks: object) -> None:
    if not isinstance(tasks, list | tuple) or not all(isinstance(one, Task) for one in tasks):
        raise ConfigError(f"{_SOURCE}: tasks: expected a list of Task, got {tasks!r}"[:_LONGEST])


def check_folder(name: str, folder: object) -> Path:
    """Returns where something is, or will be.

    Raises:
        ConfigError: This cannot say where.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise ConfigError(f"{name}: expected a folder, got {folder!r}")
    return Path(folder)


def _by_section(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        given = value if key in _SECTIONS else {key: value}
        if not isinstance(given, Mapping):
            raise ConfigError(f"{_SOURCE}: {key} is a section: give a dict of its settings")
        section = sections.setdefault(key if key in _SECTIONS else _section_of(key), {})
        for name in section.keys() & given.keys():
            raise ConfigError(f"{_SOURCE}: {name!r} is given twice")
        section.update({name: str(v) if isinstance(v, Path) else v for name, v in given.items()})
    return sections


def _section_of(key: str) -> str:
    known = {name: [field.name for field in fields(cls)] for name, cls in _SECTIONS.items()}
    owners = [name for name, keys in known.items() if key in keys]
    if not owners:
        names = [*known, *(name for keys in known.values() for name in keys)]
        mend = "docs/training.md names all settings"
        raise ConfigError(f"{_SOURCE}: unknown setting {key!r}{did_you_mean(key, names)}; {mend}")
    if len(owners) > 1:
        places = " or ".join(f"{owner}={{{key!r}: ...}}" for owner in owners)
        raise ConfigError(f"{_SOURCE}: {key!r} is a setting of several sections; give {places}")
    return owners[0]


def _dev_scores(run: Path, step: int) -> dict[str, dict[str, float]]:
    """Returns the dev metrics that the run's log has of a step."""
    from trunkline_train.report import read_log

    for line in read_log(run):
        if line["step"] == step and "dev" in line:
            scores: dict[str, dict[str, float]] = line["dev"]
            return scores
    return {}
