"""Opens plain or gzip text files; errors name the file and line."""

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
    """Yields (line number, line) of a UTF-8 file; decompresses `.gz`.

    Strips line ends unless `ends` is true, and drops a byte order mark.

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
    """Returns the text of a UTF-8 file; decompresses `.gz`.

    Raises:
        DataError: The file is missing, truncated or not UTF-8.
    """
    return "".join(line for _, line in read_lines(path, ends=True))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file for reading bytes; decompresses `.gz`.

    Raises:
        DataError: The file is missing or truncated, even if found only while reading.
    """
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            # GzipFile implements IO[bytes] but is not typed as such.
            yield cast("IO[bytes]", file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"is not a whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]  # None for a damaged file
        raise DataError(path, f"cannot be read: {reason}; check the path") from None
