import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import build_tiny_bundle
from trunkline.bundle import EncoderFacts, Gate, Graph, Manifest, Tensor, open_bundle
from trunkline.structure import parse, plain


@dataclass(frozen=True)
class Part:
    name: str
    share: float = 0.5


@dataclass(frozen=True)
class Whole:
    count: int
    on: bool
    parts: tuple[Part, ...] = ()
    kind: Literal["a", "b"] = "a"
    limit: float | None = None
    choice: int | str = 0
    table: dict[str, Part] = field(default_factory=dict)
    any: object = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


@dataclass(frozen=True)
class Outer:
    inner: Whole


GOOD: dict[str, Any] = {"count": 1, "on": True}

names = st.text(max_size=5)
numbers = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Part, names, numbers)
whole_numbers = st.integers(-(2**63) + 1, 2**63 - 1)
wholes = st.builds(
    Whole,
    count=st.integers(min_value=0, max_value=2**63 - 1),
    on=st.booleans(),
    parts=st.lists(parts, max_size=3).map(tuple),
    kind=st.sampled_from(["a", "b"]),
    limit=st.none() | numbers,
    choice=whole_numbers | names,
    table=st.dictionaries(names, parts, max_size=3),
    any=st.none() | st.lists(st.integers()) | names,
)


@given(wholes)
def test_what_is_written_is_read_again(whole: Whole) -> None:
    assert parse(Whole, plain(whole)) == whole
    assert parse(Whole, json.loads(json.dumps(plain(whole)))) == whole


def test_a_manifest_is_read_again_but_for_its_tasks(tmp_path: Any) -> None:
    manifest = open_bundle(build_tiny_bundle(tmp_path / "tiny")).manifest
    manifest = replace(
        manifest,
        gates=(replace(manifest.gates[0], value=89.9, low=-0.3, n=1000),),
        provenance={"made": {"by": ["x", 1, 2.5, None, True]}},
    )
    written = json.loads(json.dumps(plain(manifest)))
    assert parse(Manifest, {**written, "tasks": []}) == replace(manifest, tasks=())
    assert all(isinstance(graph, Graph) for graph in manifest.graphs)
    assert isinstance(manifest.encoder, EncoderFacts)
    assert isinstance(manifest.graphs[0].inputs[0], Tensor)
    assert all(isinstance(gate, Gate) for gate in manifest.gates)


def test_a_whole_number_is_read_where_a_fraction_is_meant() -> None:
    part = parse(Part, {"name": "x", "share": 2})
    assert part.share == 2.0
    assert isinstance(part.share, float)


def test_defaults_are_taken_for_keys_that_are_absent() -> None:
    assert parse(Whole, GOOD) == Whole(1, True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "top level: expected a table, got list"),
        ("x", "top level: expected a table, got str"),
        ({}, "count: missing"),
        ({"count": 1}, "on: missing"),
        ({**GOOD, "cuont": 2}, "cuont: unknown key (did you mean 'count'?); known: count, on,"),
        ({**GOOD, 7: 2}, "7: unknown key; known:"),
        ({**GOOD, "count": "1"}, "count: expected int, got str '1'"),
        ({**GOOD, "count": 1.0}, "count: expected int, got float 1.0"),
        ({**GOOD, "count": True}, "count: expected int, got bool True"),
        ({**GOOD, "count": None}, "count: expected int, got NoneType None"),
        ({**GOOD, "on": 1}, "on: expected bool, got int 1"),
        ({**GOOD, "parts": {}}, "parts: expected a list, got dict"),
        ({**GOOD, "parts": "xy"}, "parts: expected a list, got str"),
        ({**GOOD, "parts": [{"name": "x"}, 3]}, "parts[1]: expected a table, got int 3"),
        ({**GOOD, "parts": [{}]}, "parts[0].name: missing"),
        ({**GOOD, "parts": [{"name": "x", "share": True}]}, "parts[0].share: expected float"),
        (
            {**GOOD, "parts": [{"name": "x", "share": 10**400}]},
            "parts[0].share: expected a number, got one",
        ),
        (
            {**GOOD, "parts": [{"name": "x", "share": math.nan}]},
            "parts[0].share: must be a finite number",
        ),
        (
            {**GOOD, "parts": [{"name": "x", "share": -math.inf}]},
            "parts[0].share: must be a finite number",
        ),
        ({**GOOD, "count": 10**400}, "count: expected a number of 64 bits, got one of 401 digits"),
        ({**GOOD, "count": -(2**63)}, "count: expected a number of 64 bits, got one of 19 digits"),
        ({**GOOD, "kind": "c"}, "kind: expected one of 'a', 'b', got 'c'"),
        ({**GOOD, "kind": ["a"]}, "kind: expected one of 'a', 'b', got ['a']"),
        ({**GOOD, "limit": "low"}, "limit: expected float, got str 'low'"),
        ({**GOOD, "choice": 1.5}, "choice: expected str, got float 1.5"),
        ({**GOOD, "table": []}, "table: expected a table, got list"),
        ({**GOOD, "table": {"x": {"name": 1}}}, "table.x.name: expected str, got int 1"),
        ({**GOOD, "count": -1}, "count must not be negative"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(Whole, value)
    assert str(caught.value).startswith(message)


def test_refusals_name_the_whole_path() -> None:
    for inner, message in [
        ({**GOOD, "count": -1}, "file.inner: count must not be negative"),
        ({**GOOD, "parts": [{"nam": 1}]}, "file.inner.parts[0].nam: unknown key"),
        (3, "file.inner: expected a table, got int 3"),
    ]:
        with pytest.raises(ValueError) as caught:
            parse(Outer, {"inner": inner}, "file")
        assert str(caught.value).startswith(message)


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(ValueError) as caught:
        parse(Part, {"name": ["x"] * 1000})
    assert len(str(caught.value)) < 120
