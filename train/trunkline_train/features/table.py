"""Training rows as one Arrow table: compact in memory, or memory-mapped from a file.

Columns: the lists `input_ids` and `token_type_ids`, the row's bounds, and one column `target.NAME`
of numbers or lists per target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trunkline.encode import Row
from trunkline_train.features.build import Feature

_TARGET = "target."
_LISTS: dict[str, type[np.integer[Any]]] = {"input_ids": np.int32, "token_type_ids": np.int8}
_BOUNDS = tuple(field.name for field in fields(Row) if field.name not in _LISTS)
_AT_ONCE = 4096  # features converted to columns per step

Get = Callable[[int], Any]  # maps an index to a number or an array


class FeatureTable(Sequence[Feature]):
    """Training rows with their targets.

    Args:
        table: Table with the columns described above.

    Attributes:
        table: The same table, in one chunk.
        lengths: [N] tokens of each row, including special tokens.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        columns = {name: _getter(self.table.column(name)) for name in self.table.column_names}
        self._targets = {
            name.removeprefix(_TARGET): columns.pop(name)
            for name in self.table.column_names
            if name.startswith(_TARGET)
        }
        self._row = columns
        self.lengths = np.diff(parts(self.table.column("input_ids"))[1])

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Feature:  # type: ignore[override]
        """Returns a row with its targets."""
        at = range(len(self))[index]
        values = {name: get(at) for name, get in self._row.items()}
        bounds = {name: int(values[name]) for name in _BOUNDS}
        row = Row(values["input_ids"], values["token_type_ids"], **bounds)
        return Feature(row, {name: get(at) for name, get in self._targets.items()})


def tabled(features: Iterable[Feature]) -> FeatureTable:
    """Collects features in a table."""
    source = iter(features)
    chunks = iter(lambda: list(islice(source, _AT_ONCE)), [])
    batches = [_columns(chunk) for chunk in chunks]
    return FeatureTable(pa.concat_tables(batches) if batches else _columns([]))


def _columns(features: Sequence[Feature]) -> pa.Table:
    columns = {
        name: _lists([getattr(feature.row, name) for feature in features], dtype)
        for name, dtype in _LISTS.items()
    }
    for name in _BOUNDS:
        columns[name] = pa.array(np.array([getattr(one.row, name) for one in features], np.int32))
    for name in features[0].targets if features else ():
        values = [feature.targets[name] for feature in features]
        columns[_TARGET + name] = (
            _lists(values, np.int32) if np.ndim(values[0]) else pa.array(np.array(values, np.int32))
        )
    return pa.table(columns)


def _lists(values: Sequence[Any], dtype: type[np.integer[Any]]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int64)
    joined = np.concatenate(values) if values else np.zeros(0, np.int64)
    return pa.LargeListArray.from_arrays(offsets, joined.astype(dtype))


def _getter(column: pa.ChunkedArray) -> Get:
    """Returns a function that reads the column's values without copying the column."""
    values, *offsets = parts(column)
    if not offsets:
        return lambda at: np.int64(values[at])
    edges = offsets[0]
    return lambda at: values[edges[at] : edges[at + 1]].astype(np.int64)


def parts(column: pa.ChunkedArray) -> tuple[NDArray[np.integer[Any]], ...]:
    """Returns the arrays of a `FeatureTable` column without copying.

    They are the values and, for a column of lists, the offsets [N + 1] of the lists in the values.
    """
    array = column.chunk(0)
    if pa.types.is_large_list(array.type):
        return array.values.to_numpy(), array.offsets.to_numpy()
    return (array.to_numpy(),)
