import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trunkline import files
from trunkline.files import (
    left_aside,
    read_steadily,
    replaced_folder,
    sha256_of,
    write_whole,
)


def fill(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part").mkdir(exist_ok=True)
    (folder / "part" / "file").write_text(text)


def held(folder: Path) -> str:
    return (folder / "part" / "file").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with replaced_folder(target) as aside:
        fill(aside, "new")
        assert not target.exists()
        assert aside.parent == target.parent
    assert held(target) == "new"
    assert names(target.parent) == ["target"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    fill(target, "old")
    (target / "more").write_text("")
    with replaced_folder(target) as aside:
        fill(aside, "new")
        assert held(target) == "old"
    assert held(target) == "new"
    assert names(target) == ["part"]
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    fill(target, "old")
    with pytest.raises(error), replaced_folder(target) as aside:
        fill(aside, "new")
        raise error
    assert held(target) == "old"
    assert names(tmp_path) == ["target"]


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), replaced_folder(tmp_path / "target") as aside:
        fill(aside, "new")
        raise ValueError
    assert names(tmp_path) == []


# Writes "new" over `target`, and kills itself at the call of a function, the nth.
WRITER = """
import os, signal, sys
from pathlib import Path
from trunkline import files

target, step, times, swaps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
called = []

def dying(*given, **named):
    called.append(1)
    if len(called) == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*given, **named)

if swaps == "no":
    files._exchange = lambda one, two: False
function = getattr(files, step)
setattr(files, step, dying)
with files.replaced_folder(target) as aside:
    (aside / "part").mkdir()
    (aside / "part" / "file").write_text("new")
"""


def write_and_die(target: Path, step: str, times: int = 1, swaps: str = "yes") -> None:
    command = [sys.executable, "-c", WRITER, str(target), step, str(times), swaps]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("step", "stands"), [("_sync", "old"), ("_put", "old"), ("_remove", "new")]
)
def test_a_writer_killed_at_any_step_leaves_a_whole_folder(
    tmp_path: Path, step: str, stands: str
) -> None:
    target = tmp_path / "target"
    fill(target, "old")
    write_and_die(target, step)
    assert held(target) == stands
    assert left_aside(target) is None
    with replaced_folder(target) as aside:
        assert names(aside) == []
        fill(aside, "newer")
    assert held(target) == "newer"
    assert names(tmp_path) == ["target"]  # what the dead one left is cleared


# Where two folders cannot be swapped in one step. Calls of `_placed`: as it begins, under the lock,
# and between the renames.
@pytest.mark.parametrize(
    ("step", "times", "stands"),
    [("_locked", 1, "old"), ("_placed", 2, "old"), ("_placed", 3, None), ("_remove", 2, "new")],
)
def test_a_writer_killed_between_two_renames_loses_nothing(
    tmp_path: Path, step: str, times: int, stands: str | None
) -> None:
    target = tmp_path / "target"
    fill(target, "old")
    write_and_die(target, step, times, swaps="no")
    if stands is None:
        left = left_aside(target)
        assert left is not None
        assert held(left) == "old"
        assert not target.exists()
    else:
        assert held(target) == stands
    with pytest.raises(ValueError), replaced_folder(target):
        raise ValueError  # the next writer fails, and yet puts back what there was
    assert held(target) == (stands or "old")
    assert left_aside(target) is None
    with replaced_folder(target) as aside:
        fill(aside, "newer")
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("swaps", [True, False])
def test_writers_at_once_do_not_touch_each_others_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "_exchange", lambda one, two: False)
    target = tmp_path / "target"
    with replaced_folder(target) as one:
        fill(one, "one")
        with replaced_folder(target) as two:
            fill(two, "two")
            assert held(one) == "one"
        assert held(target) == "two"
    assert held(target) == "one"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("swaps", [True, False])
def test_threads_that_write_at_once_leave_the_folder_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "_exchange", lambda one, two: False)
    target = tmp_path / "target"
    fill(target, "before")

    def write(number: int) -> None:
        for _ in range(10):
            with replaced_folder(target) as aside:
                fill(aside, str(number))

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    assert held(target) in {"0", "1", "2", "3"}
    assert names(tmp_path) == ["target"]


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped in one step on Linux")
def test_a_reader_always_finds_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def write(text: str) -> None:
        with replaced_folder(target) as aside:
            fill(aside, text)
            (aside / "twin").write_text(text)

    def read() -> tuple[str, str]:
        return held(target), (target / "twin").read_text()

    write("0")
    with ThreadPoolExecutor(1) as writer:
        done = writer.submit(lambda: [write(str(number)) for number in range(50)])
        while not done.done():
            one, two = read_steadily(target, read)
            assert one == two
        done.result()


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped in one step on Linux")
def test_a_folder_with_the_number_of_a_removed_one_is_another(tmp_path: Path) -> None:
    target = tmp_path / "target"
    left = ["4", "3", "2", "1"]

    def write(text: str) -> None:
        with replaced_folder(target) as aside:
            fill(aside, text)

    def read() -> tuple[str, str]:
        one = held(target)
        if left:  # replaced twice: the second new folder often takes the number of the first
            write(left.pop())
            two = held(target)
            write(left.pop())
            return one, two
        return one, held(target)

    write("0")
    assert read_steadily(target, read) == ("4", "4")


def test_reading_again_is_for_replaced_folders_only(tmp_path: Path) -> None:
    asked = []

    def read() -> None:
        asked.append(1)
        raise OSError("it is broken")

    fill(tmp_path / "target", "old")
    with pytest.raises(OSError, match="it is broken"):
        read_steadily(tmp_path / "target", read)
    assert len(asked) == 1


def test_what_an_older_version_left_aside_is_found_and_put_back(tmp_path: Path) -> None:
    target = tmp_path / "target"
    fill(tmp_path / ".target.old", "old")
    assert left_aside(target) == tmp_path / ".target.old"
    with pytest.raises(ValueError), replaced_folder(target):
        raise ValueError
    assert held(target) == "old"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("path", [".", "..", "/", "absent", "a/../b"])
def test_nothing_is_left_aside_as_a_rule(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    fill(folder, "kept")
    monkeypatch.chdir(folder)
    assert left_aside(Path(path)) is None


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    for text in ("old 😀", "new"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert names(path.parent) == ["file.json"]


def test_a_file_that_cannot_be_written_keeps_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "file"
    write_whole(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()
