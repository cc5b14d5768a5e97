"""A small world: an encoder of two layers, files of names and questions, a trained model.

All is made here and deterministic; nothing comes from a network. Training takes seconds.
"""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

from trunkline_train.config import Config, load_config

POSITIONS = 64
OVERLAP = 16

# Some are several words of the tokenizer (Saint-Denis), some several pieces (Ham ##burg).
PEOPLE = ("Ada Brown", "Ivo Wilson", "Mia Keller", "Tom Reed", "Eva Stone", "Max Winter")
PLACES = ("Bern", "Hamburg", "New York", "Saint-Denis", "Oslo", "Lima")
_PIECES = ("Ham", "##burg", "Wil", "##son", "open", "##ed")
_SPLIT = ("Hamburg", "Wilson", "opened")
_WORDS = """
    the a in of and it museum city lives works was born met opened rained yesterday today there
    where does live work who whom did meet is has what . , ? - ' ( ) Saint Denis New York
"""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# {p} and {q} are people, {l} is a place.
_PATTERNS = (
    "{p} lives in {l} .",
    "{p} works in {l} , the city of {q} .",
    "{p} met {q} in {l} yesterday .",
    "the museum of {l} opened today .",
    "it rained in {l} .",
    "there it rained yesterday .",
)
_TOPICS = ("life", "life", "life", "culture", "weather", "weather")  # of the patterns
_ASKED = (  # pattern, question, the answer and another gold answer
    ("{p} lives in {l}.", "Where does {p} live?", "{l}", "in {l}"),
    ("{p} met {q} in {l}.", "Whom did {p} meet?", "{q}", "{q} in {l}"),
    ("{p} was born in {l}.", "Where was {p} born?", "{l}", "in {l}"),
)

Sentence = tuple[tuple[str, str], ...]  # (word, IOB2 tag)


@dataclass(frozen=True)
class Corpus:
    """The folder of the small world.

    Attributes:
        encoder: A folder that AutoModel and AutoTokenizer load.
        config: A configuration of the tasks `ner` and `qa` over the files beside it.
        every: One of those tasks and of `topic`, `names` (many labels) and `named` (pairs).
    """

    folder: Path

    @property
    def encoder(self) -> Path:
        return self.folder / "encoder"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def every(self) -> Path:
        return self.folder / "every.toml"

    def load(self, *changes: str) -> Config:
        """Returns the configuration of `ner` and `qa` with some values replaced."""
        return load_config(self.config, changes)


def write_corpus(folder: Path) -> Corpus:
    """Writes encoder, data files and configuration."""
    corpus = Corpus(folder)
    corpus.encoder.mkdir(parents=True)
    save_encoder(corpus.encoder, bert(), wordpiece())
    write_conll(folder / "ner.train", sentences(60, 1))
    write_conll(folder / "ner.dev", sentences(20, 2), iob1=True)
    write_conll(folder / "ner.test", [*sentences(19, 3), long_sentence()])
    write_squad(folder / "qa.train.json", 40, 4)
    write_squad(folder / "qa.dev.json", 8, 5)
    write_squad(folder / "qa.test.json", 8, 6)
    for split, count, seed in (("train", 60, 8), ("dev", 20, 9), ("test", 20, 10)):
        write_texts(folder / f"texts.{split}.jsonl", count, seed)
    text = _CONFIG.format(encoder=corpus.encoder.as_posix())
    corpus.config.write_text(text)
    corpus.every.write_text(text + _TEXTS)
    return corpus


_CONFIG = """
name = "small"
encoder = "{encoder}"

[rows]
max_length = 64
overlap = 16

[training]
epochs = 4
learning_rate = 1e-2
head_learning_rate = 2e-2
precision = "fp32"
device = "cpu"
seed = 5
cache = ""

[mixing]
batches_per_step = 2

[tasks.ner]
kind = "token-classification"
train = "ner.train"
dev = "ner.dev"
test = "ner.test"
batch_size = 8

[tasks.qa]
kind = "question-answering"
train = "qa.train.json"
dev = "qa.dev.json"
test = "qa.test.json"
batch_size = 8
options = {{ n_best = 3 }}
"""


_TEXTS = """
[tasks.topic]
kind = "text-classification"
train = "texts.train.jsonl"
dev = "texts.dev.jsonl"
test = "texts.test.jsonl"
column = "topic"
batch_size = 8

[tasks.names]
kind = "text-classification"
train = "texts.train.jsonl"
dev = "texts.dev.jsonl"
test = "texts.test.jsonl"
column = "names"
batch_size = 8
options = { multi_label = true }

[tasks.named]
kind = "text-classification"
train = "texts.train.jsonl"
dev = "texts.dev.jsonl"
test = "texts.test.jsonl"
column = "named"
text_pair = "person"
batch_size = 8
options = { pair = true }
"""


def wordpiece() -> Tokenizer:
    """Returns a cased word-piece tokenizer; unknown words are one [UNK] each."""
    words = [*_WORDS.split(), *" ".join((*PEOPLE, *PLACES)).replace("-", " - ").split()]
    words += [word.capitalize() for word in _WORDS.split()]
    pieces = (*_SPECIAL, *_PIECES, *(word for word in words if word not in _SPLIT))
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    return tokenizer


def bert() -> BertModel:
    """Returns an untrained BERT, always the same."""
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=wordpiece().get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=POSITIONS,
        )
    )


def save_encoder(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Saves an encoder as the hub keeps it: config.json, model.safetensors, tokenizer files."""
    model.save_pretrained(folder)
    pad = next(piece for piece in tokenizer.get_vocab() if piece.lower() in ("[pad]", "<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad).save_pretrained(folder)


def sentences(count: int, seed: int) -> list[Sentence]:
    """Returns tagged sentences, always the same for a seed."""
    chosen = random.Random(seed)
    return [_tagged(chosen.choice(_PATTERNS), *_names(chosen)) for _ in range(count)]


def long_sentence() -> Sentence:
    """Returns one that takes several windows."""
    return tuple(pair for sentence in sentences(14, 7) for pair in sentence)


def _names(chosen: random.Random) -> tuple[str, str, str]:
    person, other = chosen.sample(PEOPLE, 2)
    return person, other, chosen.choice(PLACES)


def _tagged(pattern: str, person: str, other: str, place: str) -> Sentence:
    names = {"{p}": (person, "PER"), "{q}": (other, "PER"), "{l}": (place, "LOC")}
    pairs: list[tuple[str, str]] = []
    for part in pattern.split():
        if part not in names:
            pairs.append((part, "O"))
            continue
        name, kind = names[part]
        first, *rest = name.split()
        pairs += [(first, f"B-{kind}"), *((word, f"I-{kind}") for word in rest)]
    return tuple(pairs)


def write_conll(path: Path, given: Sequence[Sentence], *, iob1: bool = False) -> None:
    """Writes four columns: word, a tag, a chunk, and the entity; `.gz` is packed."""
    lines = []
    for number, sentence in enumerate(given):
        if number % 10 == 0:
            lines += ["-DOCSTART- -X- -X- O", ""]
        tags = [tag for _, tag in sentence]
        for (word, _), tag in zip(sentence, _iob1(tags) if iob1 else tags, strict=True):
            lines.append(f"{word} NN B-NP {tag}")
        lines.append("")
    _write(path, "\n".join(lines) + "\n")


def _iob1(tags: Sequence[str]) -> Iterator[str]:
    """Yields IOB1: B- only where an entity follows another of its type."""
    for previous, tag in pairwise(["O", *tags]):
        kept = tag.startswith("B-") and previous[2:] == tag[2:]
        yield tag if kept or tag == "O" else f"I-{tag[2:]}"


def write_texts(path: Path, count: int, seed: int) -> None:
    """Writes texts with their topic, the sorts of names in them, and if a person is named."""
    chosen = random.Random(seed)
    lines = []
    for number in range(count):
        at = number % len(_PATTERNS)
        person, other, place = _names(chosen)
        pattern = _PATTERNS[at]
        names = [name for name, mark in (("person", "{p}"), ("place", "{l}")) if mark in pattern]
        asked = chosen.choice((person, other))
        text = pattern.format(p=person, q=other, l=place)
        named = "yes" if asked in text else "no"
        row = {"text": text, "topic": _TOPICS[at], "names": names, "person": asked, "named": named}
        lines.append(json.dumps(row))
    _write(path, "\n".join(lines) + "\n")


def write_squad(path: Path, count: int, seed: int) -> None:
    """Writes `count` paragraphs of three sentences, with two questions each."""
    chosen = random.Random(seed)
    articles = [
        {"title": f"Article {number}", "paragraphs": [_paragraph(chosen, f"{seed}-{number}")]}
        for number in range(count)
    ]
    _write(path, json.dumps({"version": "1.1", "data": articles}))


def _paragraph(chosen: random.Random, name: str) -> dict[str, object]:
    context, facts = "", []
    people = chosen.sample(PEOPLE, 3)
    for number, (person, asked) in enumerate(zip(people, chosen.sample(_ASKED, 3), strict=True)):
        fill = {"p": person, "q": people[number - 1], "l": chosen.choice(PLACES)}
        sentence, question, *golds = (text.format(**fill) for text in asked)
        base = len(context)
        answers = [{"text": gold, "answer_start": base + sentence.rindex(gold)} for gold in golds]
        facts.append({"id": f"{name}-{number}", "question": question, "answers": answers})
        context += sentence + " "
    return {"context": context.strip(), "qas": facts[:2]}


def _write(path: Path, text: str) -> None:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
