"""Variants differ in what they leave out, never in what they answer."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation as command
from benchmarks.ablation_ideas import BASE, IDEAS, WHOLE, Ideas, fused_variants, variants
from benchmarks.ablation_runners import Workshop, computing, scheduler
from benchmarks.ablation_turns import Runs, Variant
from benchmarks.serving.rounds import Round
from benchmarks.serving.sides import Turn
from benchmarks.serving.traffic import workload
from trunkline.bundle import open_bundle
from trunkline.encode import Row, bare_row
from trunkline.errors import ConfigError
from trunkline.kinds import all_outputs
from trunkline.runner import PackedRunner


@pytest.fixture(scope="module")
def workshop(quantised: Path) -> Workshop:
    return Workshop(open_bundle(quantised), 1)


def rows() -> list[Row]:
    random = np.random.default_rng(0)
    return [bare_row(random.integers(5, 40, length)) for length in (3, 30, 17, 1)]


@pytest.mark.parametrize("ideas", list(variants()), ids=list(variants().values()))
def test_every_variant_computes_the_same(workshop: Workshop, ideas: Ideas) -> None:
    model = workshop.model(ideas)
    outputs = all_outputs(model.manifest.tasks)
    reference = workshop.model(replace(WHOLE, int8=ideas.int8)).runner.run(rows(), outputs)
    for found, expected in zip(model.runner.run(rows(), outputs), reference, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=2e-4)


def test_the_whole_is_the_products_own_runner(workshop: Workshop) -> None:
    assert type(workshop.model(WHOLE).runner) is PackedRunner
    assert workshop.model(BASE).graph.name == "padded-fp32"
    lengths = [3, 30]
    assert workshop.model(BASE).runner.computed(lengths) == 60
    assert workshop.model(WHOLE).runner.computed(lengths) == 33
    assert workshop.model(replace(WHOLE, packing=False)).runner.computed(lengths) == 60


def ran(workshop: Workshop, ideas: Ideas, wanted: list[str]) -> Runs:
    """Submits a row for each of the wanted tasks at once."""
    model, runs = workshop.model(ideas), Runs()
    outputs = all_outputs(model.manifest.tasks)
    scheduled = scheduler(ideas, model, runs)
    there = computing(ideas, scheduled)

    async def submit() -> None:
        calls = []
        for task in wanted:
            own = [one for one in outputs if one.name.split(".")[0] in task.split("+")]
            calls.append(there.submit(model, [bare_row(np.arange(5, 9))], own))
        for found in await asyncio.gather(*calls):
            assert found.outputs[0]

    asyncio.run(submit())
    scheduled.close()
    return runs


def test_batches_are_of_a_row_of_a_task_or_of_any(workshop: Workshop) -> None:
    asked = ["ner", "qa"] * 20
    assert set(ran(workshop, replace(WHOLE, batches="row"), asked).rows) == {1}
    shared = ran(workshop, WHOLE, asked)
    assert sum(shared.rows) == 40
    assert len(shared.rows) < 20
    apart = ran(workshop, replace(WHOLE, batches="task"), asked)
    assert sum(apart.rows) == 40
    assert 1 < max(apart.rows) <= 20


def test_without_fused_heads_each_task_has_a_pass(workshop: Workshop) -> None:
    assert sum(ran(workshop, WHOLE, ["ner+qa"]).rows) == 1
    assert sum(ran(workshop, replace(WHOLE, heads=False), ["ner+qa"]).rows) == 2


def test_a_variant_answers_and_counts(workshop: Workshop) -> None:
    model = workshop.model(WHOLE)
    traffic = workload("mixed", model.manifest, model.pipeline, None, count=16)
    one = Variant("x", BASE, workshop, traffic=traffic, callers=4)
    turn = one.turn(0.3)
    assert turn.tokens_per_second > turn.documents_per_second > 0
    assert (turn.p50_ms or 0) > 0
    assert one.runs.to_dict()["rows_a_run"] == 1
    assert one.runs.to_dict()["padding_share"] == 0
    expected = [found.to_dict() for found in model.analyze(list(traffic.documents[:4]))]
    assert 0 <= one.likeness(expected) <= 1
    one.close()


def turns(whole: float, others: float) -> Round:
    names = [*variants().values(), *fused_variants().values()]
    given = {name: Turn(others, 1) for name in names}
    return Round(given | {"whole": Turn(whole, 1)})


def test_worth_is_the_ratio_within_rounds_with_the_idea_over_without() -> None:
    rounds = [turns(20, 10), turns(6, 2), turns(4, 1)]
    found = {row["idea"]: row for row in command.worth(rounds)}
    assert set(found) == {*(one.name for one in IDEAS), "fused heads"}
    assert found["packing"]["taken_from_whole"] == {"value": 3.0, "range": [2.0, 4.0]}
    assert found["packing"]["added_to_base"]["value"] == 1.0
    assert found["lines of one width"]["added_to_base"] is None
    steps = command.ladder(rounds)
    assert [step["value"] for step in steps] == [1, 1, 1, 1, 3]


def test_a_bundle_without_int8_is_told(exported: Path) -> None:
    with pytest.raises(ConfigError, match="has no packed int8 graph"):
        Workshop(open_bundle(exported), 1)


def test_the_whole_command(
    quantised: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine must not fail the test.
    monkeypatch.setattr("benchmarks.serving.rounds.MOST_STOLEN", 1.0)
    monkeypatch.setattr("benchmarks.ablation._DOCUMENTS", 32)
    file = tmp_path / "ablation.json"
    options = ["--rounds", "1", "--seconds", "0.1", "--callers", "4", "--threads", "1"]
    options += ["--fronts", "0,1", "--json", str(file)]
    assert command.main([str(quantised), *options]) == 0
    result = json.loads(file.read_text())
    assert result["rounds"] == {"counted": 1, "left_out": 0}
    assert len(result["worth"]) == len(IDEAS) + 1
    assert [row["name"] for row in result["fronts"]] == [
        "served over the whole in process",
        "served, 1 front over 0 fronts",
    ]
    assert result["figures"]["base"]["rows_a_run"] == 1
    assert result["figures"]["whole"]["padding_share"] == 0
    out = capsys.readouterr().out
    assert "added to the base" in out
    assert "1 of 1 rounds count" in out
