"""Saves in-memory data to files named by content hash, so that a configuration can refer to it.

Resumed runs and exports read a task's data again in other processes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError
from trunkline.files import replaced_file, sha256_of
from trunkline_train.paths import cache_folder

Rows = Sequence[Mapping[str, Any]] | Sequence[tuple[str, Mapping[str, Any]]]


def sources(given: Any, key: str) -> str | list[str] | None:
    """Returns the data of a split as paths for a configuration.

    Args:
        given: A file, a `datasets.Dataset`, a list of dictionaries, a list of these, or None.
        key: Name for errors.

    Raises:
        ConfigError: `given` has another type.
    """
    if given is None or isinstance(given, str | Path):
        return None if given is None else str(given)
    if isinstance(given, list | tuple) and given and not _is_row(given[0]):
        return [_source(one, f"{key}[{at}]") for at, one in enumerate(given)]
    return _source(given, key)


def _source(given: Any, key: str) -> str:
    if isinstance(given, str | Path):
        return str(given)
    if isinstance(given, list | tuple) and given:
        return _kept_rows(given, key)
    return _kept_dataset(given, key)


def _is_row(value: Any) -> bool:
    """Returns whether a value is a dictionary, or a (text, dictionary) pair as in spaCy."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2  # noqa: PLR2004
    return isinstance(value, Mapping) or (is_pair and isinstance(value[1], Mapping))


def _kept_rows(rows: Sequence[Any], key: str) -> str:
    for at, row in enumerate(rows):
        if not _is_row(row):
            raise ConfigError(f"{key}[{at}]: is {_described(row)}; rows must be dictionaries")
    try:
        lines = [json.dumps(row, ensure_ascii=False, default=_as_json) + "\n" for row in rows]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: cannot be kept as JSON lines: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
        return _kept(path)


def _as_json(value: Any) -> Any:
    """Converts numpy numbers and arrays to Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{_described(value)} is no value of JSON")


def _kept_dataset(given: Any, key: str) -> str:
    import datasets

    if isinstance(given, datasets.DatasetDict):
        raise ConfigError(f"{key}: has the splits {', '.join(given)}; give one of them")
    if not isinstance(given, datasets.Dataset):
        mend = "give a path, a datasets.Dataset, or a list of dictionaries that is not empty"
        if hasattr(given, "to_dict"):  # pandas
            mend = "give a list of dictionaries: its to_dict('records')"
        raise ConfigError(f"{key}: is {_described(given)}; {mend}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        given.to_parquet(path)
        return _kept(path)


def _kept(path: Path) -> str:
    """Copies a file to the data folder if it is not there yet."""
    cache = cache_folder(None)
    base = Path(tempfile.gettempdir()) / "trunkline" if cache is None else cache.parent
    target = base / "data" / f"{sha256_of(path)[:32]}{path.suffix}"
    if not target.exists():
        with replaced_file(target) as aside:
            aside.write_bytes(path.read_bytes())
    return str(target)


def _described(value: Any) -> str:
    return " ".join(f"{type(value).__name__} {value!r:.60}".split())  # a table's repr has newlines
