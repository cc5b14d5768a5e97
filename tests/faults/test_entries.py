"""Words on the command line that nobody can have meant."""

from pathlib import Path

import pytest

from trunkline.cli import main


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs a command that is refused with status 2; returns the last line of what it says."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as ended:
        status = ended.code  # type: ignore[assignment]
    shown = capsys.readouterr()
    assert (status, shown.out) == (2, "")
    return shown.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "", "Ada"],
        ["inspect", ""],
        ["verify", ""],
        ["serve", ""],
        ["serve", "--config", ""],
        ["train", ""],
        ["train", "x.toml", "--out", ""],
        ["evaluate", "", "--config", "x.toml"],
        ["evaluate", "x", "--config", ""],
        ["export", "", "--out", "x"],
        ["export", "x", "--out", ""],
        ["bench", "x", "--texts", ""],
        ["bench", "x:1", "--token-file", ""],
        ["bench", "graph", ""],
        ["demo", "--out", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_working_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *words).endswith("is empty; give a path")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "x", "--config", "x", "--json", "."], "'.' is a folder; name a file in it"),
        (["evaluate", "x", "--config", "x", "--predictions", "."], "'.' is a folder"),
        (["evaluate", "x", "--config", "x", "--confusion", __file__], "is a file; name a folder"),
        (["demo", "--out", __file__], "is a file; name a folder"),
        (["bench", "graph", "x", "--threads", "-3"], "expected a whole number, 1 or more"),
        (["bench", "graph", "x", "--rounds", "0"], "expected a whole number, 1 or more"),
        (["health", "127.0.0.1:99999"], "has a port above 65535"),
        (["health", "127.0.0.1:1", "--service", "\udc80"], "--service: is not valid Unicode"),
        (["top", "127.0.0.1:99999", "--once"], "there is no such port"),
        (["bench", ".", "--texts", "none"], "--texts: none is no file; check the path"),
        (["train", "x.toml", "--resume", "--overwrite"], "not allowed with argument --resume"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refusal(capsys, *words)


def test_a_file_is_not_a_text(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("Ada\n")
    said = refusal(capsys, "predict", bundle, rows)
    assert said == (
        f"trunkline predict: text: {rows} is a file; to analyse its lines:"
        f" trunkline predict {bundle} - < {rows}"
    )


def test_what_is_no_bundle_is_told_apart(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, one, two = tmp_path / "run", tmp_path / "many" / "one", tmp_path / "many" / "two"
    (run / "best").mkdir(parents=True)
    (run / "best" / "checkpoint.json").write_text("{}")
    for folder in (one, two):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    for words in (["predict"], ["inspect"], ["verify"], ["serve", "--port", "0"]):
        command, *flags = words
        said = refusal(capsys, command, tmp_path / "none", *flags)
        assert said.endswith("none: does not exist; check the path")
        said = refusal(capsys, command, bundle / "manifest.json", *flags)
        assert said.endswith("is a file; a bundle is a folder; name the folder")
        said = refusal(capsys, command, run, *flags)
        assert said.endswith(f"export it first: trunkline export {run} --out BUNDLE")
        said = refusal(capsys, command, one.parent, *flags)
        assert said.endswith("name a bundle in it: one, two")
