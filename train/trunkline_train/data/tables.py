"""Reads rows of tables: JSON lines, CSV and TSV, Parquet, data sets of the hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.rows import as_row
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.files import opened, read_lines
from trunkline_train.data.records import Record, numbered
from trunkline_train.paths import HUB

LABEL = "label"  # a first row that holds it is a header
_HUB = re.compile(r"([^#@:]+)(?::([^#@:]+))?(?:@([^#]+))?(?:#(.+))?")
_BATCH = 1000  # rows read at once
_LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131,072


def read_jsonl(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the objects of a JSON lines file; empty lines are skipped.

    Raises:
        DataError: A line is not a JSON object; names it.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(path, f"is not JSON: {error}", number) from None
        row = as_row(values)
        if row is None:
            raise DataError(path, "is not a JSON object", number)
        yield Record(row, f"{path}:{number}")


def read_csv(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the rows of a CSV file (RFC 4180: a field in quotes may hold line ends).

    The first row is a header if the task names columns, or if it holds `label`; else columns go
    by number.

    Raises:
        DataError: A row has another number of fields, or quotes do not close; names the line.
    """
    return _separated(path, task, {"strict": True})


def read_tsv(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the rows of a TSV file: like CSV, but one row a line, and quotes mean nothing.

    Raises:
        DataError: A row has another number of fields; names the line.
    """
    return _separated(path, task, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


def _separated(path: Path, task: TaskConfig, dialect: Mapping[str, Any]) -> Iterator[Record]:
    rows = _fields(path, dialect)
    line, first = next(rows, (1, []))
    header = first if _is_header(first, task, path) else None
    if header is None and first:
        yield Record(numbered(first), f"{path}:{line}")
    for line, row in rows:
        if len(row) != len(first):
            reason = f"has {len(row)} fields, the first row has {len(first)}"
            raise DataError(path, f"{reason}; each row needs as many", line)
        values: dict[Column, Any] = numbered(row)
        if header is not None:
            values = dict(zip(header, row, strict=True))
        yield Record(values, f"{path}:{line}")


def _fields(path: Path, dialect: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of its first line, fields) of every row that is not empty."""
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader((line for _, line in read_lines(path, ends=True)), **dialect)
    line = 1
    try:
        for row in rows:
            if row:
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(path, f"is not CSV: {error}; check the quotes", line) from None


def _is_header(first: Sequence[str], task: TaskConfig, path: Path) -> bool:
    columns = [one for one in (task.column, *task.texts, task.text_pair) if one is not None]
    named = [isinstance(column, str) for column in columns]
    if any(named) and not all(named):
        raise DataError(path, "column, text and text_pair must all be names, or all numbers")
    is_header = any(named) or (not columns and LABEL in first)
    if is_header and len(set(first)) != len(first):
        raise DataError(path, f"the header names a column twice: {', '.join(first)}", 1)
    return is_header


def read_parquet(path: Path, task: TaskConfig) -> Iterator[Record]:
    """Yields the rows of a Parquet file.

    Class labels of a file that `datasets` wrote come as names.

    Raises:
        DataError: The file is missing or not Parquet, or a class label is none; names the row.
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
    """Yields the rows of a data set of the Hugging Face hub; class labels come as names.

    Args:
        source: `hub:NAME[:SUBSET][@REVISION]#SPLIT`.

    Raises:
        DataError: It cannot be loaded, or a class label is none; names the row.
    """
    rows = load_hub(source)
    yield from _records(rows.iter(_BATCH), source, _class_names(rows.features))


def read_disk(folder: str) -> Iterator[Record]:
    """Yields the rows of a data set in the folder that `Dataset.save_to_disk` wrote.

    Raises:
        DataError: It is no such folder, or holds several splits.
    """
    rows = load_disk(folder)
    yield from _records(rows.iter(_BATCH), folder, _class_names(rows.features))


@lru_cache(maxsize=8)
def load_disk(folder: str) -> Any:
    """Returns the `datasets.Dataset` of a folder that it was saved to.

    Raises:
        DataError: It is no such folder, or holds several splits.
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
    """Returns the `datasets.Dataset` of a hub source.

    Raises:
        DataError: It cannot be loaded; says why.
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
    """Returns the class names of features that are a class label, or a list of them."""
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
        return [_named(item, names, where) for item in value]
    if not 0 <= value < len(names):
        reason = f"class {value} is none of the {len(names)}; does the split have labels?"
        raise DataError(where, reason)
    return names[value]
