import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

from tests.small import Corpus
from trunkline.errors import ConfigError
from trunkline.structure import plain
from trunkline.tasks import AnswerOptions, TokenOptions
from trunkline_train.config import Config, changed, load_config, parse_config

ROOT = Path(__file__).parents[2]
NER = {"kind": "token-classification", "train": "ner.train"}


def refusal(corpus: Corpus, *changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        corpus.load(*changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("nmae=1", "nmae: unknown key (did you mean 'name'?)"),
        ("rows.max_lenght=9", "rows.max_lenght: unknown key (did you mean 'max_length'?)"),
        ("training.epoch=1", "training.epoch: unknown key (did you mean 'epochs'?)"),
        ("tasks.nr.limit={train=2}", "there is no task 'nr' (did you mean 'ner'?); known: ner, "),
        ("tasks.ner.trian=x", "tasks.ner.trian: unknown key (did you mean 'train'?)"),
        ("tasks.ner.limit.tran=1", "tasks.ner.limit.tran: unknown key (did you mean 'train'?)"),
        ("tasks.qa.options.nbest=1", "options.nbest: unknown key (did you mean 'n_best'?)"),
        ("tasks.ner.options.n_best=1", "options.n_best: unknown key; known: aggregation"),
    ],
)
def test_unknown_key_is_named_at_every_level(corpus: Corpus, change: str, told: str) -> None:
    assert told in refusal(corpus, change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("tasks.topic.text_pair=other", "tasks.topic: text_pair: the task does not read pairs of"),
        ("tasks.ner.text_pair=other", "tasks.ner: text_pair: the task does not read pairs of"),
        ("tasks.qa.text_pair=other", "tasks.qa: text_pair: the task does not read pairs of"),
        ('tasks.ner.text=["a", "b"]', "tasks.ner: text: token-classification reads one column"),
        ('tasks.qa.text=["a", "b"]', "tasks.qa: text: question-answering reads one column"),
        ("tasks.qa.label_names={a='b'}", "tasks.qa: label_names: question-answering has no label"),
    ],
)
def test_columns_that_a_task_would_not_read_are_refused(
    corpus: Corpus, change: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config(corpus.every, [change])


@pytest.mark.parametrize(("given", "read"), [("body", ("body",)), ("1", (1,)), ("[0, 2]", (0, 2))])
def test_text_is_one_column_or_a_list(corpus: Corpus, given: str, read: tuple[object]) -> None:
    task = load_config(corpus.every, [f"tasks.topic.text={given}"]).tasks["topic"]
    assert task.texts == read


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("name=3", "name: expected str, got int 3"),
        ("rows=5", "rows: expected a table, got int 5"),
        ("tasks=[1]", "tasks: expected a table"),
        ("training.epochs=two", "training.epochs: expected int, got str 'two'"),
        ("training.epochs=2.5", "training.epochs: expected int"),
        ("training.epochs=true", "training.epochs: expected int"),
        ("training.learning_rate=true", "training.learning_rate: expected float"),
        ("training.precision=fp8", "training.precision: expected one of 'auto', 'fp32', 'bf16'"),
        ("tasks.ner.options.aggregation=words", "expected one of 'spans', 'tags'"),
    ],
)
def test_wrong_type_is_named(corpus: Corpus, change: str, told: str) -> None:
    assert told in refusal(corpus, change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "mixing.ratios={ner=1, qa=1}",
            "mixing: sampler 'ratios' and the table ratios go together",
        ),
        ("tasks={}", "at least one is needed"),
        ("tasks.NER={kind='token-classification', train='x'}", "task name 'NER'"),
        (
            "tasks.ner.kind=token-clasification",
            "unknown kind of task 'token-clasification' (did you mean 'token-classification'?)",
        ),
    ],
)
def test_value_that_cannot_train_is_refused(corpus: Corpus, change: str, told: str) -> None:
    assert told in refusal(corpus, change)


# Numbers that no run could use, by key. Each is refused, as are NaN and infinity.
UNFIT = {
    "rows.max_length": [0],
    "rows.overlap": [-1],
    "model.layers": [0],
    "model.dropout": [-0.1, 1],
    "model.hidden_dropout": [-0.1, 1],
    "model.attention_dropout": [-0.1, 1],
    "model.freeze_layers": [-1],
    "model.lora_rank": [-1],
    "model.lora_alpha": [0],
    "model.lora_dropout": [1],
    "mixing.batches_per_step": [0],
    "mixing.temperature": [0],
    "mixing.ratios.ner": [0],
    "balancing.rate": [0],
    "balancing.alpha": [-1],
    "distillation.temperature": [0],
    "distillation.share": [-0.1, 1.1],
    "distillation.final_share": [-0.1, 1.1],
    "training.epochs": [0],
    "training.min_steps": [0],
    "training.learning_rate": [0, -1e-3],
    "training.head_learning_rate": [0, -1e-3],
    "training.layer_decay": [0, 1.1],
    "training.warmup": [-0.1, 1.5],
    "training.weight_decay": [-0.1],
    "training.clip_norm": [0, -1],
    "training.seed": [-1, 2**64],
    "training.batch_tokens": [0],
    "training.save_steps": [0],
    "training.patience": [0],
    "training.diagnose_steps": [-1],
    "tasks.ner.downsample": [0, 1.1],
    "tasks.ner.limit.train": [0],
    "tasks.ner.limit.dev": [0],
    "tasks.ner.limit.test": [0],
    "tasks.ner.batch_size": [0],
    "tasks.ner.weight": [0, -1],
}


def numbers(cls: type, path: str) -> Iterator[tuple[str, type]]:
    """Yields the key and type of every number in a section of the configuration."""
    for name, hint in get_type_hints(cls).items():
        table = get_origin(hint) is dict
        kinds = set(get_args(hint)[1:] if table else get_args(hint) or (hint,))
        key = f"{path}{name}.ner" if table else path + name
        for inner in filter(is_dataclass, kinds):
            yield from numbers(inner, f"{key}.")
        if kinds & {int, float} and str not in kinds:  # a column is a number or a name
            yield key, float if float in kinds else int


def test_every_number_has_a_range() -> None:
    assert {key for key, _ in numbers(Config, "")} == UNFIT.keys()


@pytest.mark.parametrize("key", UNFIT)
def test_numbers_out_of_their_range_are_refused(corpus: Corpus, key: str) -> None:
    kind = dict(numbers(Config, ""))[key]
    for value in (*UNFIT[key], *(("nan", "inf", "-inf") if kind is float else ())):
        told = refusal(corpus, f"{key}={value}")
        assert f"{key}: must be " in told, value
        assert re.search(r"(at least|above|at most|below) [\d.]", told), value


def test_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^here: tasks.ner.train: missing$"):
        parse_config({"name": "x", "encoder": "y", "tasks": {"ner": {"kind": NER["kind"]}}}, "here")


def test_set_replaces_and_adds_values(corpus: Corpus) -> None:
    changed = corpus.load(
        "training.epochs=7",
        "training.epochs=8",
        "tasks.ner.limit.train=9",
        "tasks.qa.options.max_answer_tokens=4",
        "name=plain-words",
    )
    assert changed.training.epochs == 8
    assert changed.tasks["ner"].limit.train == 9
    assert changed.tasks["qa"].decode_options() == AnswerOptions(n_best=3, max_answer_tokens=4)
    assert changed.name == "plain-words"
    assert changed.training.learning_rate == corpus.load().training.learning_rate


@pytest.mark.parametrize("change", ["epochs", "=3", "name.x=1", "training.epochs.x=1"])
def test_set_that_fits_nowhere_is_refused(corpus: Corpus, change: str) -> None:
    assert f"--set {change}" in refusal(corpus, change)


def test_a_file_that_python_cannot_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"deep.toml: is not valid TOML: "):
        load_config(tmp_path / "deep.toml")


def test_the_file_may_come_from_any_editor(corpus: Corpus, tmp_path: Path) -> None:
    edited = tmp_path / "edited.toml"
    text = corpus.config.read_text().replace("\n", "\r\n")
    edited.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_config(edited).training == corpus.load().training


PLACES = """
name = "x"
encoder = "{encoder}"
[training]
cache = "../kept"
[tasks.ner]
kind = "token-classification"
train = ["a.conll", "deeper/b.conll"]
dev = "hub:own#dev"
test = "hub:some/set#test"
teacher = "runs/ner"
"""


def test_paths_are_relative_to_the_file_and_those_of_set_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "own").mkdir(parents=True)
    (tmp_path / "project" / "bert").mkdir()
    file = tmp_path / "project" / "c.toml"
    file.write_text(PLACES.format(encoder="bert"))
    for working in (tmp_path, tmp_path / "project", tmp_path / "project" / "own"):
        monkeypatch.chdir(working)
        config = load_config(Path(os.path.relpath(file)), ["tasks.ner.limit.dev=3"])
        task, there = config.tasks["ner"], str(tmp_path / "project")
        assert config.encoder == f"{there}/bert"
        assert config.training.cache == str(tmp_path / "kept")
        assert task.train == (f"{there}/a.conll", f"{there}/deeper/b.conll")
        assert (task.dev, task.test) == (f"hub:{there}/own#dev", "hub:some/set#test")
        assert task.teacher == f"{there}/runs/ner"
        assert load_config(file, ["tasks.ner.limit.dev=3"]) == config
        told = ["tasks.ner.dev=x.conll", "tasks.ner.teacher=../t", "encoder=./e"]
        moved = load_config(file, told)
        assert moved.tasks["ner"].dev == str(working / "x.conll")
        assert moved.tasks["ner"].teacher == str(working.parent / "t")
        assert moved.encoder == str(working / "e")
        assert changed(config, told[:1]).tasks["ner"].dev == str(working / "x.conll")


@pytest.mark.parametrize(
    ("encoder", "path"),
    [
        ("bert-base-uncased", False),
        ("google-bert/bert-base-uncased", False),
        ("google-bert/bert-base-uncased@v1.0", False),
        ("some/encoder@refs/pr/1", False),
        ("./encoder", True),
        ("../encoder", True),
        ("encoder/", True),
        ("models/mine/encoder", True),
        ("~/encoder", True),
        ("C:\\models\\encoder", True),
    ],
)
def test_an_encoder_that_can_only_be_a_path_is_one(
    tmp_path: Path, encoder: str, path: bool
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(PLACES.format(encoder=encoder.replace("\\", "\\\\")))
    found = load_config(file).encoder
    assert Path(found).is_absolute() == path
    assert path or found == encoder


def test_hub_names_and_absolute_paths_stay(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'name="x"\nencoder="some/encoder"\n[tasks.ner]\nkind="token-classification"\n'
        'train="hub:some/set#train"\ntest="/data/ner.test"\n'
    )
    config = load_config(file)
    assert config.encoder == "some/encoder"
    assert config.tasks["ner"].train == "hub:some/set#train"
    assert config.tasks["ner"].test == "/data/ner.test"
    assert config.tasks["ner"].decode_options() == TokenOptions("spans")


@pytest.mark.parametrize(
    ("content", "told"), [(b"name = ", "not valid TOML"), (b"\xff\xfe", "not valid TOML")]
)
def test_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load_config(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read"):
        load_config(tmp_path / "nowhere.toml")


def test_plain_values_read_back_as_the_same_configuration(corpus: Corpus) -> None:
    config = corpus.load("tasks.ner.limit.train=9", "training.head_learning_rate=1")
    assert parse_config(plain(config), "") == config


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.toml")), ids=lambda f: f.name)
def test_shipped_configuration_is_valid(file: Path) -> None:
    assert isinstance(load_config(file), Config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("epochs=2", "epochs: unknown key; did you mean training.epochs?"),
        ("max_length=64", "max_length: unknown key; did you mean rows.max_length?"),
        ("training.dropout=0.1", "training.dropout: unknown key; did you mean model.dropout?"),
        ("batch_size=4", "batch_size: unknown key; did you mean tasks.NAME.batch_size?"),
        ("tasks.ner.epochs=2", "tasks.ner.epochs: unknown key; did you mean training.epochs?"),
        (
            "tasks.qa.n_best=2",
            "tasks.qa.n_best: unknown key; did you mean tasks.NAME.options.n_best?",
        ),
        (
            "temperature=2",
            "temperature: unknown key; did you mean mixing.temperature or "
            "distillation.temperature?",
        ),
        ("trainig.epochs=2", "trainig.epochs: unknown key; did you mean training.epochs?"),
        ("trainig={}", "trainig: unknown key (did you mean 'training'?)"),
    ],
)
def test_a_key_in_the_wrong_table_is_shown_its_place(
    corpus: Corpus, change: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(corpus.config, [change])
    assert str(caught.value).startswith(f"{corpus.config}: {told}")
