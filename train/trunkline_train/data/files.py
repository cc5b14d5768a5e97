"""Opens text files, plain or gzip, with errors that name the file and line."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from trunkline.errors import DataError


def read_lines(path: Path, *, ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yields (line number, line) of a UTF-8 file; `.gz` is unpacked.

    Lines come without their ends unless `ends`; a byte order mark is dropped.

    Raises:
        DataError: The file is missing, truncated or not UTF-8.
    """
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text if ends else text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        utf16 = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is UTF-16" if utf16 else f"is not UTF-8 at byte {error.start} of the line"
        reason = f"{what}; save it as UTF-8"
        raise DataError(path, reason, number) from None


def read_text(path: Path) -> str:
    """Returns a whole UTF-8 file; `.gz` is unpacked.

    Raises:
        DataError: The file is missing, truncated or not UTF-8.
    """
    return "".join(line for _, line in read_lines(path, ends=True))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Gives a file to read bytes from; `.gz` is unpacked.

    Raises:
        DataError: The file is missing or truncated, also where that shows inside the block.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            # GzipFile has all that IO[bytes] asks for, but does not say so.
            yield cast("IO[bytes]", file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"is not a whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]  # of a damaged file, no system error
        raise DataError(path, f"cannot be read: {reason}; check the path") from None
