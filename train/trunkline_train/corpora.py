"""Corpora: where the examples of a task are, and how to read them. Some have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from trunkline.errors import ConfigError, DataError
from trunkline_train.config import Column
from trunkline_train.data.memory import Rows, sources

if TYPE_CHECKING:
    from datasets import Dataset

    Data: TypeAlias = str | Path | Rows | Dataset | Sequence[str | Path | Rows | Dataset]

Source = str | Path
_NAMED_TOPICS = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}


@dataclass(frozen=True)
class Corpus:
    """The data of one task. Keys, formats and defaults are those of a configuration.

    Attributes:
        kind: The kind of task its labels are for, e.g. `token-classification`.
        train, dev, test: A file, `hub:NAME[:SUBSET][@REVISION]#SPLIT`, a `datasets.Dataset`, a list
            of dictionaries, or a list of such. Without `dev`, a part of `train` is held out. What
            is no file is kept as one, beside the cache of encoded rows.
        column: Where labels stand.
        text: Column of the text, or columns.
        text_pair: Column of the second text of a pair.
        offsets: What the bounds of spans count; None for what the format's own tool counts.
        overlaps: What becomes of spans that overlap: `error`, or the `longest` stays.
        labels: The label set; empty infers it.
        label_names: What labels in the data stand for.
        options: Decode defaults that fit the labels.
        limit: Most examples, by split.
        share: Of the examples that is kept.
    """

    kind: str
    train: Data
    dev: Data | None = None
    test: Data | None = None
    column: Column | None = None
    text: Column | Sequence[Column] = ()
    text_pair: Column | None = None
    offsets: str | None = None
    overlaps: str = "error"
    labels: Sequence[str] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    share: float = 1.0

    def downsample(self, share: float) -> Corpus:
        """Returns the corpus with that share of every split, the same examples each time."""
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise ConfigError(f"downsample: expected a share, above 0 and at most 1, got {share!r}")
        return replace(self, share=self.share * share)

    def table(self) -> dict[str, Any]:
        """Returns the corpus as the keys of a task in a configuration.

        Raises:
            ConfigError: The data is nothing that can be read.
        """
        return {
            "kind": self.kind,
            **{split: sources(getattr(self, split), split) for split in ("train", "dev", "test")},
            "column": self.column,
            "text": self.text,
            "text_pair": self.text_pair,
            "offsets": self.offsets,
            "overlaps": self.overlaps,
            "labels": self.labels,
            "label_names": self.label_names,
            "options": self.options,
            "limit": self.limit,
            "downsample": self.share,
        }


def conll_2003(folder: Source | None = None) -> Corpus:
    """Named entities in news: PER, LOC, ORG, MISC.

    Args:
        folder: Holds eng.train, eng.testa and eng.testb (or packed, with .gz); None takes the hub.
    """
    if folder is None:
        train, dev, test = _hub("lhoestq/conll2003", "validation")
    else:
        train, dev, test = _files(folder, "eng.train", "eng.testa", "eng.testb")
    return Corpus("token-classification", train, dev, test)


def clean_conll(folder: Source) -> Corpus:
    """CoNLL-2003 with 7 % of its labels corrected; its authors' script makes the files.

    Args:
        folder: Holds cleanconll.train, cleanconll.dev and cleanconll.test.
    """
    names = (f"cleanconll.{split}" for split in ("train", "dev", "test"))
    train, dev, test = _files(folder, *names)
    return Corpus("token-classification", train, dev, test)


def conll_2000(folder: Source | None = None) -> Corpus:
    """Syntactic chunks: NP, VP, PP and eight others. There is no dev split.

    Args:
        folder: Holds train.txt and test.txt; None takes the hub.
    """
    if folder is None:
        train, _, test = _hub("eriktks/conll2000@refs/convert/parquet", None)
        return Corpus("token-classification", train, test=test, column="chunk_tags")
    train, test = _files(folder, "train.txt", "test.txt")
    return Corpus("token-classification", train, test=test)


def ud_english(column: str = "upos", folder: Source | None = None) -> Corpus:
    """Part-of-speech tags of the English Web Treebank.

    Args:
        column: `upos` for the 17 universal tags, `xpos` for the 49 of English.
        folder: Holds en_ewt-ud-train.conllu and so on; None takes the hub.
    """
    names = (f"en_ewt-ud-{split}.conllu" for split in ("train", "dev", "test"))
    hub = "universal-dependencies/universal_dependencies:en_ewt"
    train, dev, test = _hub(hub, "dev") if folder is None else _files(folder, *names)
    options = {"aggregation": "tags"}
    return Corpus("token-classification", train, dev, test, column, options=options)


def ag_news(folder: Source | None = None) -> Corpus:
    """Topics of news: World, Sports, Business, Sci/Tech. There is no dev split.

    Args:
        folder: Holds train.csv and test.csv, without a header; None takes the hub.
    """
    if folder is None:
        train, _, test = _hub("fancyzhx/ag_news", None)
        return Corpus("text-classification", train, test=test)
    train, test = _files(folder, "train.csv", "test.csv")
    return Corpus(
        "text-classification",
        train,
        test=test,
        column=0,
        text=(1, 2),
        label_names=_NAMED_TOPICS,
    )


def squad(folder: Source | None = None) -> Corpus:
    """Questions on Wikipedia. The dev split is held out of train; the official one is for test.

    Args:
        folder: Holds train-v1.1.json and dev-v1.1.json; None takes the hub.
    """
    return _squad("rajpurkar/squad", "v1.1", folder)


def squad_v2(folder: Source | None = None) -> Corpus:
    """The same, with questions the text does not answer.

    Args:
        folder: Holds train-v2.0.json and dev-v2.0.json; None takes the hub.
    """
    return _squad("rajpurkar/squad_v2", "v2.0", folder)


def _squad(name: str, version: str, folder: Source | None) -> Corpus:
    if folder is None:
        train, test, _ = _hub(name, "validation")
    else:
        train, test = _files(folder, f"train-{version}.json", f"dev-{version}.json")
    return Corpus("question-answering", train, test=test)


def _hub(name: str, dev: str | None) -> tuple[str, str | None, str]:
    return f"hub:{name}#train", dev and f"hub:{name}#{dev}", f"hub:{name}#test"


def _files(folder: Source, *names: str) -> tuple[str, ...]:
    if not isinstance(folder, str | Path):
        raise ConfigError(f"folder: expected a path, got {folder!r}")
    return tuple(_file(Path(folder), name) for name in names)


def _file(folder: Path, name: str) -> str:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return str(path)
    raise DataError(folder, f"has no {name} nor {name}.gz; name your files in a Corpus(...)")
