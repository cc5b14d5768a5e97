"""Rows to padded batches of similar length, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline.decode.numeric import Floats
from trunkline.encode import Row
from trunkline.kinds import Output

PADDED_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_WASTE_SHARE = 0.1  # of a batch's real tokens that may be spent on padding
_WASTE_FREE = 32  # padding tokens that cost less than another run of the graph


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups rows into batches, longest first; returns the indices of each batch.

    A batch holds at most `budget` tokens, padding included (a longer row stands alone), and spends
    at most a tenth of its real tokens on padding, or a handful.
    """
    batches: list[list[int]] = []
    width = real = 0
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        padded = width * (len(batches[-1]) + 1) if batches else 0
        waste = padded - real - lengths[index]
        fits = padded <= budget and waste <= max(_WASTE_SHARE * real, _WASTE_FREE)
        if not batches or not fits:
            batches.append([])
            width, real = lengths[index], 0
        batches[-1].append(index)
        real += lengths[index]
    return batches


def pad(rows: Sequence[Row], pad_id: int, width: int = 0) -> dict[str, NDArray[np.int64]]:
    """Returns input_ids, attention_mask and token_type_ids, [B, S] each, padded on the right.

    S is the longest row's length, or `width` if that is more.
    """
    shape = (len(rows), max(width, *(len(row) for row in rows)))
    inputs = {
        "input_ids": np.full(shape, pad_id, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    for index, row in enumerate(rows):
        inputs["input_ids"][index, : len(row)] = row.input_ids
        inputs["attention_mask"][index, : len(row)] = 1
        inputs["token_type_ids"][index, : len(row)] = row.token_type_ids
    return inputs


def unpad(
    rows: Sequence[Row], outputs: Sequence[Output], values: Sequence[Floats]
) -> list[Mapping[str, Floats]]:
    """Returns each row's part of the outputs, without its padding."""
    return [
        {
            output.name: value[index, : len(row)] if "sequence" in output.axes else value[index]
            for output, value in zip(outputs, values, strict=True)
        }
        for index, row in enumerate(rows)
    ]
