"""The guide to training does what it says: its examples run, its tables are whole."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.small import Corpus as World
from tests.small import sentences
from trunkline_train import Corpus, corpora
from trunkline_train.config import Config, TaskConfig, load_config

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
RUNNING = [code for code in EXAMPLES if "train(" in code]


@pytest.fixture
def small_corpora(corpus: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The named corpora, each a small file of the small world."""
    world = corpus.folder
    tagged = tmp_path / "tags.conll"
    lines = ["\n".join(f"{word} {tag[:1]}" for word, tag in one) for one in sentences(20, 3)]
    tagged.write_text("\n\n".join(lines) + "\n")
    topics = tmp_path / "topics.jsonl"
    texts = [" ".join(word for word, _ in one) for one in sentences(40, 4)]
    rows = [
        f'{{"text": "{text}", "label": "{"rain" if "rained" in text else "people"}"}}'
        for text in dict.fromkeys(texts)
    ]
    topics.write_text("\n".join(rows) + "\n")
    tags = Corpus("token-classification", tagged, options={"aggregation": "tags"})
    spans = Corpus("token-classification", world / "ner.train", world / "ner.dev")
    named = {
        "ud_english": tags,
        "conll_2000": spans,
        "conll_2003": Corpus("token-classification", *(world / f"ner.{s}" for s in SPLITS)),
        "ag_news": Corpus("text-classification", topics),
        "squad": Corpus("question-answering", *(world / f"qa.{s}.json" for s in SPLITS)),
    }
    for name, small in named.items():
        monkeypatch.setattr(corpora, name, lambda *args, small=small: small)
    monkeypatch.chdir(tmp_path)
    yield


SPLITS = ("train", "dev", "test")


@pytest.mark.parametrize("code", RUNNING, ids=["pos-chunk", "topics-ner", "ner-qa"])
@pytest.mark.usefixtures("small_corpora", "undrawn")
def test_example_is_short_and_prints_all_tasks(
    code: str, corpus: World, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15
    encoder = re.search(r'encoder="(.*?)"', code)
    assert encoder
    small = code.replace(encoder[1], corpus.encoder.as_posix()).replace(
        "downsample(0.", "downsample(0.9"
    )
    names = re.findall(r'Task\("(\w+)"', small)
    # Rows of the small encoder are short, and what it learns does not matter.
    small = re.sub(r"\bout=", "max_length=64, overlap=16, cache='', min_steps=4, out=", small)
    exec(compile(small, "docs/training.md", "exec"), {})
    said = capsys.readouterr()
    assert "DocumentResult(" not in said.out
    log = said.err
    assert "epoch 1" in log
    for name in names:
        assert re.search(rf"^  {name} .*(f1|accuracy)", log, re.MULTILINE), log


def test_every_setting_is_named() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", GUIDE, re.MULTILINE))
    sections = {name: hint for name, hint in get_type_hints(Config).items() if is_dataclass(hint)}
    sections["tasks.NAME"] = TaskConfig
    for section, cls in sections.items():
        assert re.findall(r"`(\w+)`", rows[section]) == [field.name for field in fields(cls)]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_configuration_is_whole(path: Path) -> None:
    config = load_config(path)
    assert f"configs/{path.name}" in path.read_text()
    assert all(task.sources("test") for task in config.tasks.values())
