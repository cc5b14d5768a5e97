import errno
import logging
import os
import tomllib
from pathlib import Path

import pytest

from trunkline.errors import ConfigError, Overloaded
from trunkline_serve.security.commands import token
from trunkline_serve.security.tokens import (
    Bucket,
    Caller,
    Tokens,
    digest_of,
    new_token,
    read_tokens,
)


def entry(name: str, secret: str, more: str = "") -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest_of(secret)}"\n{more}\n'


def write(path: Path, text: str) -> str:
    """Replaces a file as an editor does; only its owner can read it."""
    aside = path.with_suffix(".new")
    aside.touch(0o600)
    aside.write_text(text)
    aside.replace(path)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def find(tokens: Tokens, secret: str, now: float) -> Caller | None:
    """Finds as a server does, which looks at the file when it is time to."""
    if tokens.due(now):
        tokens.look()
    return tokens.find(secret)


def name_of(tokens: Tokens, secret: str, now: float) -> str | None:
    found = find(tokens, secret, now)
    return None if found is None else found.name


def test_new_tokens_are_long_and_all_different() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(one.startswith("trunkline_") and len(one) >= 53 for one in made)


def test_callers_are_found_by_their_token(file: Path) -> None:
    ours, theirs = new_token(), new_token()
    tokens = Tokens(write(file, entry("ours", ours, "admin = true") + entry("theirs", theirs)))
    found = find(tokens, ours, 0.0)
    assert found is not None
    assert (found.name, found.admin) == ("ours", True)
    found = find(tokens, theirs, 0.0)
    assert found is not None
    assert (found.name, found.admin) == ("theirs", False)


def test_the_file_may_come_from_any_editor(file: Path) -> None:
    text = entry("ours", "secret").replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert name_of(Tokens(str(file)), "secret", 0.0) == "ours"


@pytest.mark.parametrize(
    "wrong", ["", "x", "é", "\ud800", "x" * 100_000, digest_of("secret"), "secret ", "Secret"]
)
def test_no_other_text_is_a_token(file: Path, wrong: str) -> None:
    tokens = Tokens(write(file, entry("ours", "secret")))
    assert find(tokens, wrong, 0.0) is None
    assert name_of(tokens, "secret", 0.0) == "ours"


def test_a_changed_file_is_read_again_within_a_second(file: Path) -> None:
    tokens = Tokens(write(file, entry("old", "1")))
    assert name_of(tokens, "1", 10.0) == "old"
    write(file, entry("new", "2"))
    assert name_of(tokens, "1", 10.9) == "old"
    assert name_of(tokens, "1", 11.0) is None
    assert name_of(tokens, "2", 11.0) == "new"


def test_a_file_changed_in_place_is_read_again(file: Path) -> None:
    tokens = Tokens(write(file, entry("a", "1")))
    file.write_text(entry("longer", "2"))
    os.utime(file, ns=(1, 1))
    assert name_of(tokens, "2", 5.0) == "longer"


def test_all_tokens_can_be_taken_back(file: Path) -> None:
    tokens = Tokens(write(file, entry("a", "1")))
    write(file, "token = []")
    assert find(tokens, "1", 5.0) is None


BROKEN = {
    "not TOML": ("[[token", "Expected"),
    "empty": ("", "token: missing"),
    "not UTF-8": (b"\xff\xfe", "utf-8"),
    "nested": ("token = " + "[" * 100_000, "recursion"),
    "unknown key": (entry("a", "1", "amdin = true"), "token[0].amdin: unknown key"),
    "no digest": ('[[token]]\nname = "a"', "token[0].sha256: missing"),
    "short digest": ('[[token]]\nname = "a"\nsha256 = "12"', "must be 64 hex digits"),
    "the token itself": (f'[[token]]\nname = "a"\nsha256 = "{new_token()}"', "64 hex digits"),
    "odd name": (entry("a b", "1"), "may only have letters"),
    "admin is a word": (entry("a", "1", 'admin = "no"'), "admin: expected bool"),
    "rate is zero": (entry("a", "1", "calls_per_second = 0"), "must be above 0"),
    "rate is endless": (entry("a", "1", "calls_per_second = inf"), "must be a finite number"),
    "rate is nan": (entry("a", "1", "calls_per_second = nan"), "must be a finite number"),
    "burst alone": (entry("a", "1", "burst = 2"), "beside calls_per_second"),
    "burst is zero": (entry("a", "1", "calls_per_second = 1\nburst = 0"), "must be 1 or more"),
    "twin names": (entry("a", "1") + entry("a", "2"), "two tokens have name 'a'"),
    "twin tokens": (entry("a", "1") + entry("b", "1"), "two tokens have sha256"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_in_one_line(file: Path, case: str) -> None:
    content, message = BROKEN[case]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        Tokens(str(file))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"auth.tokens: {file}: ")
    assert message in line


def test_a_missing_file_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Tokens(str(file))


@pytest.mark.parametrize("case", [*BROKEN, "missing"])
def test_a_broken_new_file_keeps_the_old_tokens_and_says_so_once(
    file: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(write(file, entry("old", "old")))
    if case == "missing":
        file.unlink()
    else:
        content, _ = BROKEN[case]
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for now in (5.0, 10.0, 15.0):
        assert name_of(tokens, "old", now) == "old"
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert record.getMessage().endswith("what was read before stays in force")
    write(file, entry("new", "new"))
    assert name_of(tokens, "new", 20.0) == "new"


def test_what_could_not_be_read_for_lack_of_descriptors_is_read_later(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(write(file, entry("old", "old")))
    write(file, "token = []\n")
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", _no_descriptor)
        assert name_of(tokens, "old", 5.0) == name_of(tokens, "old", 10.0) == "old"
    assert name_of(tokens, "old", 15.0) is None
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one.levelname for one in told] == ["ERROR"]  # once


def _no_descriptor(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_a_file_that_everybody_can_read_is_told(
    file: Path, mode: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(entry("a", "1"))
    file.chmod(mode)
    read_tokens(str(file))
    assert ["every user" in record.getMessage() for record in caplog.records] == [True] * warned


def test_a_bucket_gives_its_permits_back_at_an_even_rate() -> None:
    bucket = Bucket(rate=2.0, size=3.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(100.25) == pytest.approx(0.25)
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) == 0.5
    assert [bucket.take(1e6) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_slow_rate_still_gives_one_call() -> None:
    bucket = Bucket(rate=0.1, size=1.0)
    assert bucket.take(1.0) == 0.0
    assert bucket.take(2.0) == pytest.approx(9.0)
    assert bucket.take(11.0) == 0.0


def test_a_caller_above_the_rate_is_told_when_to_come_back(file: Path) -> None:
    limits = "calls_per_second = 2\nburst = 1"
    caller = Tokens(write(file, entry("busy", "1", limits))).find("1")
    assert caller is not None
    caller.charge(50.0)
    with pytest.raises(Overloaded, match="token 'busy' is used more often") as caught:
        caller.charge(50.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    caller.charge(50.5)


def test_reading_the_file_again_forgives_no_calls(file: Path) -> None:
    limits = "calls_per_second = 0.001"
    tokens = Tokens(write(file, entry("busy", "1", limits)))
    caller = find(tokens, "1", 1.0)
    assert caller is not None
    caller.charge(1.0)
    write(file, entry("other", "2") + entry("busy", "1", limits))
    caller = find(tokens, "1", 5.0)
    assert caller is not None
    with pytest.raises(Overloaded):
        caller.charge(5.0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ci"], {"name": "ci"}),
        (["ops", "--admin"], {"name": "ops", "admin": True}),
        (
            ["a.b-c_1", "--calls-per-second", "2.5", "--burst", "5"],
            {"name": "a.b-c_1", "calls_per_second": 2.5, "burst": 5},
        ),
    ],
)
def test_the_command_prints_a_token_and_an_entry_that_lets_it_in(
    file: Path,
    arguments: list[str],
    expected: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert token(arguments) == 0
    secret, _, text = capsys.readouterr().out.partition("\n")
    (made,) = tomllib.loads(text)["token"]
    assert made == expected | {"sha256": digest_of(secret)}
    assert secret not in text
    assert name_of(Tokens(write(file, text)), secret, 0.0) == expected["name"]


@pytest.mark.parametrize(
    "arguments", [["a b"], [""], ["x", "--burst", "2"], ["x", "--calls-per-second", "-1"]]
)
def test_the_command_refuses_what_could_not_work(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        token(arguments)


def test_the_entry_in_the_documentation_can_be_read(file: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("[[token]]")
    shown = rest.partition("\n\n")[0].split("\n", 1)[1]
    text = "[[token]]\n" + "\n".join(line.strip() for line in shown.splitlines())
    (made,) = read_tokens(write(file, text.replace('"5f0c..."', f'"{digest_of("1")}"')))
    assert (made.name, made.calls_per_second, made.burst) == ("ci", 50.0, 100)
