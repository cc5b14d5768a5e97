import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import repeat as endless
from pathlib import Path

import pytest

from tests.serve.hosting import Loop
from tests.serve.security.certificates import authority, signed
from trunkline import Model
from trunkline.cpu import CpuTimes, cpu_times
from trunkline.errors import BundleError, ConfigError, DataError, RuntimeFault, Unauthenticated
from trunkline_serve.bench.load import Extent, Sample, drive
from trunkline_serve.bench.machine import commit
from trunkline_serve.bench.report import figures, kept, table
from trunkline_serve.bench.rounds import Round
from trunkline_serve.bench.texts import SHORT, load_texts
from trunkline_serve.commands import bench
from trunkline_serve.security.tokens import digest_of


def test_a_bundle_is_measured(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine must not fail the test.
    monkeypatch.setattr("trunkline_serve.bench.rounds.MOST_STOLEN", 1.0)
    file = tmp_path / "bench.json"
    options = ["--concurrency", "1,3", "--requests", "80", "--rounds", "2", "--json", str(file)]
    assert bench([str(bundle), *options, "--threads", "1"]) == 0
    record = json.loads(file.read_text())
    found = record["figures"]
    assert set(found) == {
        "in process short",
        "grpc short",
        "empty",
        "in process",
        "in process together",
        "grpc 1",
        "grpc 3",
        "overhead_ms",
    }
    for row in (found["grpc 1"], found["grpc 3"]):
        assert row["calls"] == 80
        assert row["errors"] == {}
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["tokens_per_second"] > row["documents_per_second"]
    assert record["rounds"]["counted"] == record["rounds"]["measured"] == 2
    assert record["settings"]["documents"] == 40
    assert record["versions"]["onnxruntime"]
    out = capsys.readouterr().out
    assert "grpc 3" in out
    assert "overhead" in out


def test_a_running_server_is_measured(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench([address, "--concurrency", "2", "--requests", "5", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "grpc 2" in out
    assert "in process" not in out


def test_a_private_server_is_measured_by_who_may_call(
    host: Loop, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline_serve.bench.rounds.MOST_STOLEN", 1.0)
    own = authority()
    certificate, key = signed(own, "server").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(own.pem)
    tokens, token = tmp_path / "tokens.toml", tmp_path / "token"
    tokens.write_text(f'[[token]]\nname = "ci"\nsha256 = "{digest_of("secret")}"\n')
    token.write_text("secret\n")
    quick = ["--requests", "1", "--rounds", "1", "--concurrency", "1"]
    safe = ["--tls-ca", str(tmp_path / "ca.pem")]
    with host.serving([model], tokens=str(tokens), certificate=certificate, key=key) as hosted:
        assert bench([hosted.address, *quick, *safe, "--token-file", str(token)]) == 0
        with pytest.raises(Unauthenticated):
            bench([hosted.address, *quick, *safe])
        monkeypatch.setenv("TRUNKLINE_TOKEN", "secret")
        assert bench([hosted.address, *quick, *safe]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["127.0.0.1:1", "--threads", "2"], "--threads: has no effect on a server that runs"),
        (["127.0.0.1:1", "--graph", "packed-int8"], "--graph: has no effect"),
        (["127.0.0.1:1", "--device", "cpu"], "--device: has no effect"),
        ([".", "--tls"], "--tls: has no effect on a bundle"),
        ([".", "--token-file", "t"], "--token-file: has no effect on a bundle"),
        (["nowhere"], "nowhere: is neither a bundle's folder nor HOST:PORT"),
        (["127.0.0.1:1", "--requests", "3"], "--requests: 3 is less than one for each of --rounds"),
        (["127.0.0.1:1", "--token-file", "none"], "--token-file: cannot read none: No such file"),
        (["10.0.0.1:1", "--token-file", __file__], "token: is empty, or holds a blank"),
    ],
)
def test_what_would_have_no_effect_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bench(arguments)
    assert str(caught.value).startswith(told)


def test_a_token_does_not_travel_in_the_open_unless_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with pytest.raises(ConfigError, match="anybody on the way could read the token"):
        bench(["192.0.2.1:1", "--token-file", str(token)])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "-3"],
        ["--rounds", "0"],
        ["--threads", "0"],
        ["--seconds", "nan"],
        ["--seconds", "0"],
        ["--requests", "1.5"],
        ["--concurrency", "4,0"],
        ["--concurrency", ""],
        ["--requests", "5", "--seconds", "2"],
        ["--json", "."],
    ],
)
def test_numbers_that_could_not_be_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench(["127.0.0.1:1", *arguments])
    assert "invalid" not in capsys.readouterr().err  # argparse's own words, which say nothing


def test_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        bench([str(tmp_path)])


def test_a_closed_loop_keeps_its_concurrency_and_counts_tokens() -> None:
    running: list[int] = []
    most = Counter[str]()

    async def call() -> int:
        running.append(1)
        most["callers"] = max(most["callers"], len(running))
        await asyncio.sleep(0)
        running.pop()
        return 7

    calls: endless[Callable[[], Awaitable[int]]] = endless(call)
    sample = asyncio.run(drive(calls, 4, Extent(0, 30)))
    assert (len(sample.latencies), sample.tokens, most["callers"]) == (30, 210, 4)


def sampled(*milliseconds: float) -> Sample:
    return Sample([value / 1000 for value in milliseconds], 10, 1.0)


def test_figures_pool_the_rounds_and_the_overhead_is_a_median() -> None:
    names = ("grpc short", "in process short", "empty")
    rounds = [
        Round(
            dict(zip(names, map(sampled, row), strict=True)) | {"in process together": sampled(1)}
        )
        for row in ((5.0, 3.0, 1.0), (5.5, 3.0, 1.0), (99.0, 3.0, 1.0))
    ]
    found = figures(rounds, 40)
    assert found["grpc short"]["calls"] == 3
    assert found["overhead_ms"] == pytest.approx(1.5)
    assert "1.500 ms" in table(found)


def test_rounds_on_a_throttled_machine_do_not_count() -> None:
    assert [one.stolen for one in kept([Round({}, 0.05), Round({}, 0.3)])] == [0.05]


def test_nothing_is_reported_if_no_round_counts(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline_serve.bench.rounds.MOST_STOLEN", -1.0)
    with pytest.raises(RuntimeFault, match="nothing to report"):
        bench([address, "--concurrency", "1", "--requests", "1", "--rounds", "1"])


def test_stolen_share(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1 1\n")
    assert cpu_times(stat) == CpuTimes(100, 10)
    assert CpuTimes(200, 30).share_since(CpuTimes(100, 10)) == 0.2
    assert cpu_times(tmp_path / "none").share_since(CpuTimes(0, 0)) == 0


def test_commit_is_that_of_this_checkout_or_unknown() -> None:
    assert commit() is None or len(commit() or "") >= 40


def test_own_texts_are_a_mix() -> None:
    texts = load_texts(None, ask=True)
    assert len(texts) == 40
    assert sum(bool(text.questions) for text in texts) == 27
    assert not any(text.questions for text in load_texts(None, ask=False))
    assert SHORT.text.count(".") == 1


JSON_LINES = '{"text": "one\u2028a"}\r\n{"text": "two\x85b"}\r\n'


def test_texts_of_a_file(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one\n\ntwo\n")
    lines.write_text('{"text": "one", "questions": ["Who?"]}\n{"text": "two"}\n')
    assert [one.text for one in load_texts(plain, ask=True)] == ["one", "two"]
    assert [len(one.questions) for one in load_texts(lines, ask=True)] == [1, 0]


@pytest.mark.parametrize("content", ["", "[]\n", "{}\n", "x\n"])
def test_unreadable_texts_are_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(DataError):
        load_texts(file, ask=True)


def test_texts_may_come_from_any_editor(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one\u2028a\r\ntwo\x85b\r\n"), ("a.jsonl", JSON_LINES)):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        found = [one.text for one in load_texts(tmp_path / name, ask=True)]
        assert found == ["one\u2028a", "two\x85b"]
