"""Four ordinary packages in four plain folders."""

from pathlib import Path

import pytest

PACKAGES = [
    "runtime/trunkline",
    "train/trunkline_train",
    "export/trunkline_export",
    "serve/trunkline_serve",
]


def test_no_top_folder_is_a_package(root: Path) -> None:
    assert [path.parent.name for path in root.glob("*/__init__.py")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed(root: Path, package: str) -> None:
    assert (root / package / "__init__.py").is_file()
    assert (root / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_folder_holds_one_package(root: Path, package: str) -> None:
    folder = (root / package).parent
    assert [path.parent for path in folder.glob("*/__init__.py")] == [root / package]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_code_is_a_package(root: Path, package: str) -> None:
    folders = {path.parent for path in (root / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
