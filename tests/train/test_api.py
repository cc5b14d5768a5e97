from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small import Corpus as World
from trunkline import Model
from trunkline.errors import ConfigError, DataError
from trunkline.structure import plain
from trunkline_train import Corpus, Task, corpora, load, train
from trunkline_train.api import configure
from trunkline_train.config import load_config

NER = Corpus("token-classification", "ner.train")


def configured(*tasks: Task, **settings: Any) -> Any:
    return configure(tasks or [Task("ner", NER)], name="x", encoder="e", settings=settings)


def refusal(*tasks: Task, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(*tasks, **settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_python_and_file_give_the_same_configuration(corpus: World) -> None:
    world = corpus.folder
    splits = ("train", "dev", "test")
    ner = Corpus("token-classification", *(world / f"ner.{split}" for split in splits))
    qa = Corpus("question-answering", *(world / f"qa.{split}.json" for split in splits))
    wanted = load_config(corpus.config)
    config = configure(
        [Task("ner", ner, batch_size=8), Task("qa", qa, batch_size=8, n_best=3)],
        name="small",
        encoder=corpus.encoder,
        settings={
            "max_length": 64,
            "overlap": 16,
            "batches_per_step": 2,
            "training": plain(wanted.training),
        },
    )
    assert config == wanted


def test_settings_find_their_section() -> None:
    config = configured(
        epochs=7, lora_rank=4, sampler="temperature", method="gradnorm", mixing={"temperature": 5.0}
    )
    assert config.training.epochs == 7
    assert config.model.lora_rank == 4
    assert (config.mixing.sampler, config.mixing.temperature) == ("temperature", 5.0)
    assert (config.balancing.method, config.distillation.temperature) == ("gradnorm", 2.0)


def test_path_may_be_a_setting() -> None:
    assert configured(cache=Path("a/b")).training.cache == str(Path("a/b").absolute())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epoch": 3}, "unknown setting 'epoch' (did you mean 'epochs'?)"),
        ({"modle": {}}, "unknown setting 'modle' (did you mean 'model'?)"),
        ({"temperature": 2.0}, "give mixing={'temperature': ...} or distillation="),
        ({"mixing": "temperature"}, "mixing is a section: give a dict"),
        ({"epochs": 3, "training": {"epochs": 2}}, "'epochs' is given twice"),
        ({"training": {"epoch": 2}}, "training.epoch: unknown key (did you mean 'epochs'?)"),
        ({"epochs": 0}, "training.epochs: must be at least 1, not 0"),
        ({"sampler": "robin"}, "mixing.sampler: expected one of 'round-robin'"),
    ],
)
def test_unfit_setting_is_named(settings: dict[str, Any], told: str) -> None:
    assert told in refusal(**settings)


def test_equal_names_are_refused() -> None:
    assert "two tasks are named 'ner'" in refusal(Task("ner", NER), Task("ner", NER))


def test_unknown_option_of_a_task_is_named() -> None:
    told = refusal(Task("ner", NER, n_best=3))
    assert "tasks.ner" in told
    assert "options.n_best: unknown key" in told


def test_nothing_is_written_when_a_setting_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train([Task("ner", NER)], out=tmp_path / "run", epoch=1)
    assert not (tmp_path / "run").exists()


def test_downsampling_multiplies_and_leaves_the_corpus_alone() -> None:
    half = NER.downsample(0.5)
    assert (NER.share, half.share, half.downsample(0.5).share) == (1.0, 0.5, 0.25)
    assert configured(Task("ner", half)).tasks["ner"].downsample == 0.5


@pytest.mark.parametrize(
    "make",
    [corpora.conll_2003, corpora.conll_2000, corpora.ag_news, corpora.squad, corpora.squad_v2],
)
def test_named_corpus_is_on_the_hub_or_in_a_folder(make: Any, tmp_path: Path) -> None:
    assert all(
        source.startswith("hub:")
        for source in configured(Task("x", make())).tasks["x"].sources("train")
    )
    with pytest.raises(DataError, match=r"has no .* nor .*gz; name your files in a Corpus"):
        make(tmp_path)


def test_files_of_a_named_corpus_may_be_packed(tmp_path: Path) -> None:
    (tmp_path / "train.txt").touch()
    (tmp_path / "test.txt.gz").touch()
    corpus = corpora.conll_2000(tmp_path)
    assert [Path(str(one)).name for one in (corpus.train, corpus.test)] == [
        "train.txt",
        "test.txt.gz",
    ]
    assert corpus.column is None


@pytest.mark.parametrize("make", [corpora.ud_english, corpora.ag_news])
def test_options_fit_the_kind(make: Any) -> None:
    (task,) = configured(Task("x", make())).tasks.values()
    assert task.decode_options() is not None


def test_trained_model_answers_as_its_bundle(trained: Path, small_model: Model) -> None:
    model = load(trained)
    text, questions = "Ada Brown lives in Bern .", ["Where does Ada Brown live?"]
    mine, bundled = model.analyze(text, questions), small_model.analyze(text, questions)
    assert mine.to_dict() == bundled.to_dict()
    assert model.analyze([text], tasks=["ner"])[0].tasks == mine.tasks


def test_scores_are_those_of_the_best_epoch(trained: Path) -> None:
    model = load(trained)
    assert model.checkpoint == trained / "best"
    assert model.scores["ner"]["f1"] == pytest.approx(model.evaluate("dev")["ner"].value)
    assert load(model.checkpoint).scores == model.scores
    with pytest.raises(ConfigError, match="split: expected one of dev, test, got 'tset'"):
        model.evaluate("tset")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda: Task("ner", None), "task 'ner': give a Corpus"),  # type: ignore[arg-type]
        (lambda: Task("ner", "ner.train"), "task 'ner': give a Corpus"),  # type: ignore[arg-type]
        (lambda: Task("ner", NER, teacher=3), "train: tasks.ner.teacher: expected str"),  # type: ignore[arg-type]
        (lambda: Task("ner", NER, n_best=3), "train: tasks.ner: options.n_best: unknown"),
    ],
)
def test_a_task_of_something_else_is_refused(given: Callable[[], Task], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train([given()], out="nowhere")
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"train": None}, "train: expected a list, got NoneType"),
        ({"train": 3}, "train: is int 3; give a path, a datasets.Dataset"),
        ({"train": []}, "train: is list []; give a path"),
        ({"train": ""}, "train: is empty; name a file, or leave it out"),
        ({"train": {"a": 1}}, "train: is dict"),
        ({"train": ["a", 3]}, "train[1]: is int 3; give a path"),
        ({"dev": []}, "dev: is list []; give a path"),
        ({"labels": "O"}, "labels: expected a list, got str"),
        ({"label_names": ["O"]}, "label_names: expected a table, got list"),
        ({"options": 3}, "options: expected a table, got int"),
        ({"limit": 3}, "limit: expected a table, got int"),
        ({"share": "x"}, "downsample: expected float, got str"),
    ],
)
def test_what_is_no_corpus_is_refused(values: dict[str, Any], told: str) -> None:
    corpus = Corpus(**{"kind": "token-classification", "train": "ner.train", **values})
    with pytest.raises(ConfigError) as caught:
        train([Task("ner", corpus)], out="nowhere")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tasks": 3}, "train: tasks: expected a list of Task, got 3"),
        ({"tasks": "ner"}, "train: tasks: expected a list of Task, got 'ner'"),
        ({"tasks": [NER]}, "train: tasks: expected a list of Task"),
        ({"tasks": {"ner": NER}}, "train: tasks: expected a list of Task"),
        ({"out": None}, "out: expected a folder, got None"),
        ({"out": ""}, "out: expected a folder, got ''"),
        ({"encoder": ""}, "train: encoder: is empty"),
        ({"encoder": 3}, "train: encoder: expected str"),
        ({"resume": "yes"}, "resume: expected bool"),
        ({"overwrite": 1}, "overwrite: expected bool"),
    ],
)
def test_what_cannot_be_trained_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(**{"tasks": [Task("ner", NER)], "out": "nowhere", **values})
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="folder: expected a folder, got None"):
        load(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="folder: expected a path, got 3"):
        corpora.ag_news(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="downsample: expected a share"):
        NER.downsample("half")  # type: ignore[arg-type]
