"""What the documents tell a user to type exists."""

import io
import re
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from trunkline.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
_COMMAND = re.compile(r"^(?:    |#   |\$ )trunkline ([a-z]+)([^\n#]*)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:]+)\)")


@cache
def help_of(command: str) -> str:
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    return said.getvalue()


def commands(document: Path) -> list[tuple[str, str]]:
    return _COMMAND.findall(document.read_text(encoding="utf-8"))


def test_the_readme_shows_commands() -> None:
    assert {name for name, _ in commands(ROOT / "README.md")} >= {"train", "export", "serve"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_their_options_exist(document: Path) -> None:
    for name, arguments in commands(document):
        assert name in COMMANDS
        for option in re.findall(r"--[a-z-]+", arguments):
            assert option in help_of(name), f"trunkline {name} has no {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", document.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_of_the_readme_is_the_whole_list() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| command |") :].split("\n\n")[0]
    assert set(re.findall(r"`(?:trunkline )?([a-z ]+)`", table)) == set(COMMANDS)
