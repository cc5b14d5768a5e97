"""Opens text files, plain or gzip, with errors that name the file and line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from trunkline.errors import DataError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, line without its end) of a UTF-8 file; `.gz` is unpacked.

    Raises:
        DataError: The file is missing, truncated or not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 at byte {error.start} of the line; convert the file"
        raise DataError(path, reason, number) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"is not a whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}; check the path") from None


def read_text(path: Path) -> str:
    """Returns a whole UTF-8 file; `.gz` is unpacked.

    Raises:
        DataError: The file is missing, truncated or not UTF-8.
    """
    return "\n".join(line for _, line in read_lines(path))
