"""Reads tables: JSON lines, Parquet, and data sets from the hub or disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline.formats.rows import as_row
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.files import opened, read_lines
from trunkline_train.data.records import Record, by_name
from trunkline_train.paths import HUB

_HUB = re.compile(r"([^#@:]+)(?::([^#@:]+))?(?:@([^#]+))?(?:#(.+))?")
_UNLABELLED = -1  # class label that `datasets` writes for unlabelled rows
_BATCH = 1000  # rows per read


def read_jsonl(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the objects of a JSON lines file; empty lines are skipped.

    Raises:
        DataError: A line is not a JSON object.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"is not JSON: {error}", number) from None
        row = as_row(values)
        if row is None:
            raise DataError(path, "is not a JSON object", number)
        yield Record(by_name(row), f"{path}:{number}")


def read_parquet(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the rows of a Parquet file.

    In a file written by `datasets`, class labels are converted to names.

    Raises:
        DataError: The file is missing or not Parquet, or a class label is out of range.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with opened(path) as source, parquet.ParquetFile(source) as file:
            names = _stored_names(file.schema_arrow)
            batches = (batch.to_pydict() for batch in file.iter_batches(_BATCH))
            yield from _records(batches, str(path), names)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(path, f"is not a whole Parquet file ({reason}); fetch it again") from None


def _stored_names(schema: Any) -> dict[str, Sequence[str]]:
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    return _class_names(Features.from_arrow_schema(schema))


def read_hub(source: str) -> Iterator[Record]:
    """Yields the rows of a data set on the Hugging Face hub; converts class labels to names.

    Args:
        source: `hub:NAME[:SUBSET][@REVISION]#SPLIT`.

    Raises:
        DataError: The data set cannot be loaded, or a class label is out of range.
    """
    rows = load_hub(source)
    yield from _records(rows.iter(_BATCH), source, _class_names(rows.features))


def read_disk(folder: str) -> Iterator[Record]:
    """Yields the rows of a data set in a folder written by `Dataset.save_to_disk`.

    Raises:
        DataError: The folder is not such a data set, or holds several splits.
    """
    rows = load_disk(folder)
    yield from _records(rows.iter(_BATCH), folder, _class_names(rows.features))


def load_disk(folder: str) -> Any:
    """Loads a `datasets.Dataset` from a folder written by `Dataset.save_to_disk`.

    Raises:
        DataError: The folder is not such a data set, or holds several splits.
    """
    import datasets

    try:
        found = datasets.load_from_disk(folder)
    except Exception as error:  # anything from OSError to ArrowInvalid
        reason = f"is a folder, but none that Dataset.save_to_disk wrote ({_first_line(error)})"
        raise DataError(folder, f"{reason}; for a folder of files, give {HUB}{folder}") from None
    if isinstance(found, datasets.DatasetDict):
        splits = ", ".join(str(Path(folder) / name) for name in found)
        raise DataError(folder, f"holds several splits; name one: {splits}")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@lru_cache(maxsize=8)  # each load asks the hub whether the data set changed
def load_hub(source: str) -> Any:
    """Loads the `datasets.Dataset` of a hub source.

    Raises:
        DataError: The data set cannot be loaded.
    """
    import datasets

    match = _HUB.fullmatch(source.removeprefix(HUB))
    if match is None:
        raise DataError(source, "does not have the form hub:NAME[:SUBSET][@REVISION]#SPLIT")
    name, subset, revision, split = match.groups()
    try:
        return datasets.load_dataset(name, subset, split=split or "train", revision=revision)
    except Exception as error:  # the hub client raises anything from OSError to ValueError
        reason = f"cannot be loaded from the hub: {str(error).splitlines()[0]}"
        raise DataError(source, f"{reason}; check the name and network, or give a file") from None


def _class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Returns the class names of each feature that is a class label or a list of class labels."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {name: one.names for name, one in inner.items() if hasattr(one, "names")}


def _records(
    batches: Iterable[Mapping[str, Sequence[Any]]], source: str, names: Mapping[str, Sequence[str]]
) -> Iterator[Record]:
    row = 0
    for batch in batches:
        for values in zip(*batch.values(), strict=True):
            where = f"{source} row {row}"
            record: dict[Column, Any] = dict(zip(batch, values, strict=True))
            record.update({key: _named(record[key], names[key], where) for key in names})
            yield Record(record, where)
            row += 1


def _named(value: Any, names: Sequence[str], where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        named = [_named(item, names, where) for item in value]
        return named if None not in named else None  # a partly annotated list counts as unlabelled
    if value == _UNLABELLED:
        return None
    if not 0 <= value < len(names):
        raise DataError(where, f"class {value} is none of the {len(names)}")
    return names[value]
