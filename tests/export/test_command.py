"""The options of `trunkline export`."""

from pathlib import Path

import pytest

from trunkline.cli import main
from trunkline.errors import ConfigError
from trunkline_export import commands
from trunkline_export.write import ExportOptions


class Exported(Exception):
    """Carries what the export would have been told."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(checkpoint: Path, out: Path, options: ExportOptions) -> None:
        raise Exported(checkpoint, out, options)

    monkeypatch.setattr(commands, "export_bundle", export)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], ExportOptions()),
        (["--name", "x", "--version", "3"], ExportOptions("x", 3)),
        (["--precision", "int8"], ExportOptions(precisions=("int8",))),
        (["--precision", "int8,fp32,int8"], ExportOptions(precisions=("int8", "fp32"))),
        (["--set", "a=1", "--set", "b=2"], ExportOptions(changes=("a=1", "b=2"))),
        (["--no-gate"], ExportOptions(gate=False)),
        (["--overwrite"], ExportOptions(overwrite=True)),
    ],
)
def test_options_reach_the_exporter(arguments: list[str], options: ExportOptions) -> None:
    with pytest.raises(Exported) as caught:
        main(["export", "run", "--out", "bundle", *arguments])
    assert caught.value.args == (Path("run"), Path("bundle"), options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("int4", "no precision 'int4' (did you mean 'int8'?); known: fp32, int8, fp16"),
        ("fp32,", "no precision ''; known: fp32"),
        ("fp32,bf16", "no precision 'bf16'"),
    ],
)
def test_an_unknown_precision_is_refused_and_the_nearest_named(
    given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "run", "--out", "bundle", "--precision", given])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "x", ""])
def test_a_version_is_a_number_from_one(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "run", "--out", "bundle", f"--version={version}"])
    assert "expected a whole number, 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("values", [{"version": 0}, {"version": "1"}, {"precisions": ()}])
def test_options_that_could_not_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ExportOptions(**values)  # type: ignore[arg-type]
