"""The experiments compare like with like, and say so plainly."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import mixing, notebook_loop
from experiments.five_tasks import bars, compare, count_rows, match, multi, single, taught, uneven
from experiments.five_tasks import show as show_comparison
from experiments.runs import Plan, mean_and_sd, run_all, seeded, shown
from experiments.training_speed import NOTEBOOK, OURS, Speed, Watch, summarise
from tests.small import Corpus as World
from trunkline_train.config import Config
from trunkline_train.data.source import read_splits
from trunkline_train.mixing import Mixer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(corpus: World) -> Config:
    return corpus.load("tasks.qa.batch_size=4", "training.epochs=2", "mixing={}")


def steps(config: Config) -> int:
    rows = count_rows(config)
    sizes = [-(-rows[name] // task.batch_size) for name, task in config.tasks.items()]
    seed, epochs = config.training.seed, config.training.epochs
    ratios = [1.0] * len(sizes)
    return Mixer(config.mixing, sizes, draws=1, ratios=ratios, epochs=epochs, seed=seed).total


@pytest.mark.parametrize("examples", [30, 50, None])
def test_a_task_sees_as_many_batches_alone_as_together(
    config: Config, examples: int | None
) -> None:
    budget = match(config, examples)
    together = steps(multi(budget, 1).config)
    for task in config.tasks:
        alone = single(budget, task, 1).config
        assert steps(alone) * len(config.tasks) == together
        assert alone.tasks[task] == budget.config.tasks[task]
    if examples:
        assert all(task.limit.train >= examples - 8 for task in budget.config.tasks.values())


def test_runs_differ_by_seed_and_teacher_only(config: Config, tmp_path: Path) -> None:
    budget = match(config, 30)
    one, other = multi(budget, 1), multi(budget, 2)
    assert one.name != other.name
    assert seeded(one.config, 2) == other.config
    learning = taught(budget, 1, tmp_path)
    assert learning.config.tasks["ner"].teacher == str(tmp_path / "ner-1" / "run")
    without = {name: replace(task, teacher=None) for name, task in learning.config.tasks.items()}
    assert replace(learning.config, tasks=without) == one.config


def result(**scores: float) -> dict[str, Any]:
    return {
        "scores": {task: {"value": value} for task, value in scores.items()},
        "batches": {task: 10 for task in scores},
        "step_cpu_seconds": 0.5,
        "peak_megabytes": 900.0,
    }


def test_bars_are_on_the_mean_and_on_the_worst() -> None:
    results = {
        "multi-1": result(ner=80.0, pos=90.0),
        "multi-2": result(ner=82.0, pos=90.0),
        "ner-1": result(ner=81.5),
        "ner-2": result(ner=82.0),
        "pos-1": result(pos=89.8),
        "pos-2": result(pos=89.8),
    }
    found = compare(results, "multi", [1, 2])
    assert found["tasks"]["ner"]["delta"] == pytest.approx(-0.75)
    assert found["worst_delta"] == pytest.approx(-0.75)
    assert found["mean_delta"] == pytest.approx(-0.275)
    assert [bar["pass"] for bar in bars(found, "multi", "run me")] == [True, True]
    assert "pass" in show_comparison(found, "multi")
    results["ner-1"] = result(ner=83.0)
    found = compare(results, "multi", [1, 2])
    assert [bar["pass"] for bar in bars(found, "multi", "run me")] == [False, False]
    assert uneven(results, [1, 2]) == {"ner": 0, "pos": 0}


def test_deviation_is_that_of_a_sample() -> None:
    assert mean_and_sd([1.0, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5)}
    assert mean_and_sd([1.0]) == {"mean": 1.0, "sd": 0.0}


def test_all_methods_draw_the_same_number_of_batches() -> None:
    config = mixing.base(Path("data"), ROOT / "configs/five_tasks.toml", 2, [])
    sizes = [task.limit.train // task.batch_size for task in config.tasks.values()]
    assert len(set(sizes)) == len(sizes)
    counts = set()
    for made in mixing.plans(config, [1, 2]).values():
        assert len(made) == 2
        given = made[0].config
        ratios = [given.mixing.ratios.get(task, 0.0) for task in given.tasks]
        epochs, seed = given.training.epochs, given.training.seed
        draws = given.mixing.batches_per_step or 1
        mixer = Mixer(given.mixing, sizes, draws=draws, ratios=ratios, epochs=epochs, seed=seed)
        counts.add(sum(len(mixer.at(step)) for step in range(mixer.total)))
    assert counts == {4 * max(sizes)}


def test_methods_are_listed_best_first() -> None:
    by_method = {
        "round-robin": [result(ner=80.0, pos=90.0)],
        "temperature": [result(ner=82.0, pos=90.0)],
    }
    table = mixing.show(mixing.summarise(by_method)).splitlines()
    assert table[1].startswith("temperature")
    assert "1.00x" in table[2]


def test_a_result_names_no_folder_of_this_machine(config: Config, corpus: World) -> None:
    assert str(corpus.folder) not in str(shown(config))


def speed(tokens: int, stolen: float) -> Speed:
    return Speed(tokens, 2 * tokens, seconds=1.0, steps=3, stolen=stolen, busy=1.0)


def test_throttled_rounds_do_not_count() -> None:
    rounds = {
        OURS: [speed(3000, 0.0), speed(10, 0.3), speed(3200, 0.05)],
        NOTEBOOK: [speed(1000, 0.0), speed(1000, 0.2), speed(1000, 0.0)],
    }
    found = summarise(rounds, "run me")
    assert found["ratio"] == pytest.approx(3.1)
    assert found["sides"][OURS]["counted"] == "2 of 3"
    assert found["sides"][OURS]["padding"] == pytest.approx(0.5)
    rounds[NOTEBOOK] = [speed(1000, 0.9)]
    found = summarise(rounds, "run me")
    assert found["ratio"] is None
    assert not found["bars"][0]["pass"]


def test_warm_up_is_not_counted() -> None:
    watch = Watch(seconds=1000.0)
    for _ in range(9):
        watch.step(100, 200)
    assert (watch.speed().steps, watch.speed().tokens, watch.speed().computed) == (3, 300, 600)


def test_notebook_pads_to_its_widths_and_takes_turns(
    corpus: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {notebook_loop.TOKENS: 32, notebook_loop.ANSWERS: 64}
    monkeypatch.setattr(notebook_loop, "WIDTHS", widths)
    monkeypatch.setattr(notebook_loop, "_STRIDE", 16)
    config = corpus.load()
    loop = notebook_loop.NotebookLoop(
        corpus.encoder,
        tokens=read_splits(config.tasks["ner"]).train,
        answers=read_splits(config.tasks["qa"]).train,
        batch=4,
        device=torch.device("cpu"),
    )
    costs = [loop.step() for _ in range(4)]
    assert [cost.computed for cost in costs] == [4 * 32, 4 * 64, 4 * 32, 4 * 64]
    assert all(0 < cost.real < cost.computed for cost in costs)


def test_a_finished_run_is_not_done_again(corpus: World, tmp_path: Path) -> None:
    plan = Plan("small", corpus.load("training.epochs=1"))
    first = run_all([plan], tmp_path, jobs=1, threads=1)
    written = (tmp_path / "small" / "result.json").stat().st_mtime_ns
    assert run_all([plan], tmp_path, jobs=1, threads=1) == first
    assert (tmp_path / "small" / "result.json").stat().st_mtime_ns == written
    assert first["small"]["scores"].keys() == {"ner", "qa"}
    assert first["small"]["batches"].keys() == {"ner", "qa"}
    assert first["small"]["peak_megabytes"] > 0
    assert 0 < first["small"]["step_cpu_seconds"] < first["small"]["seconds"]
    with pytest.raises(RuntimeError, match="another configuration"):
        run_all([Plan("small", seeded(plan.config, 9))], tmp_path, jobs=1, threads=1)


def test_a_failed_run_says_where_to_look(
    corpus: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.runs.sys.executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"small failed: see .*output\.txt"):
        run_all([Plan("small", corpus.load())], tmp_path, jobs=1, threads=1)
