"""Caches encoded training rows on disk, in files named by a fingerprint of their inputs.

Files are written atomically and may be deleted at any time; a broken one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import trunkline
from trunkline.encode import TextEncoder
from trunkline.errors import DataError
from trunkline.files import replaced_file
from trunkline.structure import plain
from trunkline_train.config import TaskConfig
from trunkline_train.data.source import suffix
from trunkline_train.data.tables import load_disk, load_hub
from trunkline_train.features.table import FeatureTable, parts
from trunkline_train.paths import HUB

FORMAT = 3  # increase it if the file format or the way rows are held out or built changes
_LABELS, _CHECKSUM = b"labels", b"crc32"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cached:
    """Training rows of a task, and the labels that their targets index."""

    labels: tuple[str, ...]
    features: FeatureTable


def fingerprint(task: TaskConfig, encoder: TextEncoder) -> str:
    """Returns a hash of everything that determines the encoded training rows of a task.

    Raises:
        DataError: A source is missing.
    """
    made_from = {
        "format": [FORMAT, trunkline.__version__],
        "tokenizer": encoder.to_json(),
        "rows": [encoder.max_length, encoder.overlap],
        "sources": [_content(source) for source in task.sources("train")],
        "hold out": not task.sources("dev"),
        "task": [task.kind, task.column, task.texts, task.text_pair, plain(task.decode_options())],
        "labels": [task.labels, task.label_names],
        "spans": [task.offsets, task.overlaps],
        "sample": [task.downsample, task.limit.train],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]


def data_fingerprint(task: TaskConfig) -> str:
    """Returns a hash of the contents of a task's training and dev sources.

    Raises:
        DataError: A source is missing.
    """
    held = [[_content(one) for one in task.sources(split)] for split in ("train", "dev")]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:32]


def _content(source: str) -> list[str]:
    """Returns what determines a source's examples: its content, and what tells its format."""
    if source.startswith(HUB):
        return [source, load_hub(source)._fingerprint]
    if Path(source).is_dir():
        return [source, load_disk(source)._fingerprint]
    try:
        with Path(source).open("rb") as file:
            return [suffix(source), hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError as error:
        raise DataError(source, f"cannot be read: {error.strerror}; check the path") from None


def read_cached(path: Path) -> Cached | None:
    """Memory-maps the rows of a file; returns None if it is missing or broken."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        labels = json.loads(table.schema.metadata[_LABELS])
        if table.schema.metadata[_CHECKSUM] != _checksum(table):
            raise ValueError("checksum")
        return Cached(tuple(labels), FeatureTable(table))
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        _log.warning("%s: is broken (%s), and is made anew", path, error)
        return None


def write_cached(path: Path, cached: Cached) -> None:
    """Writes rows to a file; only logs a warning if that fails, as training does not need it."""
    table = cached.features.table
    about = {_LABELS: json.dumps(cached.labels), _CHECKSUM: _checksum(table)}
    try:
        with (
            replaced_file(path) as aside,
            pa.ipc.new_file(str(aside), table.schema.with_metadata(about)) as writer,
        ):
            writer.write_table(table.replace_schema_metadata(about))
    except OSError as error:
        _log.warning("%s: cannot be written (%s); the next run encodes anew", path, error)


def _checksum(table: pa.Table) -> bytes:
    """Returns a CRC-32 checksum of the table's columns."""
    total = 0
    for column in table.columns:
        for part in parts(column):
            total = zlib.crc32(part.data, total)
    return str(total).encode()
