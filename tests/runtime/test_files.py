import hashlib
import os
from pathlib import Path

import pytest

from trunkline.files import recover_folder, replaced_folder, sha256_of, write_whole


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


def test_what_a_dead_process_left_aside_is_cleared(tmp_path: Path) -> None:
    target = tmp_path / "target"
    fill(tmp_path / ".target.new", "half")
    fill(target, "old")
    with replaced_folder(target) as aside:
        assert names(aside) == []
        fill(aside, "new")
    assert names(tmp_path) == ["target"]


def test_a_death_between_the_renames_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    fill(target, "old")
    rename = Path.rename

    def die(path: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(KeyboardInterrupt), replaced_folder(target) as aside:
        fill(aside, "new")
    monkeypatch.undo()
    assert not target.exists()
    recover_folder(target)
    assert held(target) == "old"
    assert names(tmp_path) == ["target"]


def test_a_failure_after_a_death_still_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    fill(tmp_path / ".target.old", "old")
    with pytest.raises(ValueError), replaced_folder(target):
        raise ValueError
    assert held(target) == "old"
    assert names(tmp_path) == ["target"]


def test_recovering_clears_the_old_folder_where_the_new_one_stands(tmp_path: Path) -> None:
    target = tmp_path / "target"
    fill(tmp_path / ".target.old", "old")
    fill(target, "new")
    recover_folder(target)
    assert held(target) == "new"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("path", [".", "..", "/", "absent", "a/../b"])
def test_recovering_nothing_changes_nothing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    fill(folder, "kept")
    monkeypatch.chdir(folder)
    recover_folder(Path(path))
    assert held(folder) == "kept"
    assert names(tmp_path) == ["here"]


def test_the_folder_one_stands_in_is_recovered_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    fill(folder, "new")
    fill(tmp_path / ".here.old", "old")
    monkeypatch.chdir(folder)
    recover_folder(Path())
    assert names(tmp_path) == ["here"]


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


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()
