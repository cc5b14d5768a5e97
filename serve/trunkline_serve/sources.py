"""Where settings come from: flags, over environment variables, over a file, over the defaults.

All three are made from the tree in `settings`: a field is a flag, a variable and a key at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError
from trunkline.files import read_edited
from trunkline.options import path as a_path
from trunkline.structure import parse
from trunkline_serve.settings import Settings

PREFIX = "TRUNKLINE_"
# Begins like a setting and is none: what clients on the same machine send (docs/clients.md).
TOKEN = "TRUNKLINE_TOKEN"
# Their fields are flags by their own names; those of other sections begin with the section's.
_PLAIN_SECTIONS = ("", "listen", "compute", "limits")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Leaf:
    """One setting.

    Attributes:
        section: Its section; empty at the top of the tree.
        name: Its field.
        kind: int, float, bool or str.
        choices: The texts accepted; empty for any.
        default: Its default; None where it has none.
        help: What it is.
    """

    section: str
    name: str
    kind: type
    choices: tuple[str, ...]
    default: object
    help: str

    @property
    def path(self) -> str:
        """Key path in the file, e.g. `limits.max_documents`."""
        return ".".join(filter(None, (self.section, self.name)))

    @property
    def flag(self) -> str:
        """Command line option, e.g. `--max-documents`."""
        plain = self.section in _PLAIN_SECTIONS
        return "--" + (self.name if plain else f"{self.section}-{self.name}").replace("_", "-")

    @property
    def variable(self) -> str:
        """Environment variable, e.g. `TRUNKLINE_LIMITS_MAX_DOCUMENTS`."""
        return PREFIX + self.path.replace(".", "_").upper()

    def read(self, text: str) -> object:
        """Returns the value that a text stands for.

        Raises:
            ValueError: It stands for none; says what is expected.
        """
        if self.kind is bool:
            return _read_boolean(text)
        if self.choices and text not in self.choices:
            raise ValueError(f"expected one of {', '.join(self.choices)}, got {text!r}")
        try:
            return self.kind(text)
        except ValueError:
            raise ValueError(f"expected {self.kind.__name__}, got {text!r}") from None


@dataclass(frozen=True)
class Sourced:
    """Settings, and where each came from.

    Attributes:
        settings: All of them.
        origins: Source by key path, of those that are not defaults.
    """

    settings: Settings
    origins: Mapping[str, str]


@cache
def leaves() -> tuple[Leaf, ...]:
    """Returns all settings, in the tree's order."""
    return tuple(_leaves(Settings, ""))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting, `--config` and `--print-config`."""
    parser.add_argument("--config", type=a_path, metavar="FILE", help="TOML file of settings")
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings as such a file, and end"
    )
    groups: dict[str, Any] = {"": parser}
    for leaf in leaves():
        if leaf.section not in groups:
            about = f"[{leaf.section}] of the file, {PREFIX}{leaf.section.upper()}_..."
            groups[leaf.section] = parser.add_argument_group(leaf.section, about)
        _add_flag(groups[leaf.section], leaf)


def read_settings(given: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Returns the settings; as `read_sources`, without their origins."""
    return read_sources(given, environ).settings


def read_sources(given: argparse.Namespace, environ: Mapping[str, str]) -> Sourced:
    """Returns the settings and where they came from.

    Args:
        given: What a parser with `add_settings` made of the command line.
        environ: Environment variables; an empty one counts as not set.

    Raises:
        ConfigError: A file, key, variable or value is at fault; the message names it.
    """
    tree = {} if given.config is None else _read_file(given.config)
    origins = {leaf.path: f"file {given.config}" for leaf in leaves() if _is_in(tree, leaf)}
    named = vars(given)
    told = [(leaf, value, leaf.variable) for leaf, value in _from_environment(environ)]
    told += [(leaf, named[leaf.path], leaf.flag) for leaf in leaves() if leaf.path in named]
    for leaf, value, origin in told:
        section = tree.setdefault(leaf.section, {}) if leaf.section else tree
        if isinstance(section, dict):  # else the file is wrong, which is told below
            section[leaf.name] = value
            origins[leaf.path] = origin
    return Sourced(_checked(tree, given.config, origins), origins)


def as_toml(sourced: Sourced) -> str:
    """Returns settings as a file for `--config`, each with its origin as a comment."""
    lines, section = [], ""
    for leaf in leaves():
        if leaf.section != section:
            section = leaf.section
            lines += ["", f"[{section}]"]
        owner = getattr(sourced.settings, section) if section else sourced.settings
        value = getattr(owner, leaf.name)
        origin = _one_line(sourced.origins.get(leaf.path, "default"))
        unset = f"# {leaf.name} is not set"
        lines.append(unset if value is None else f"{leaf.name} = {_toml(value)}  # {origin}")
    return "\n".join(lines).lstrip("\n")


def _leaves(cls: type, section: str) -> Iterator[Leaf]:
    hints = typing.get_type_hints(cls)
    # What has no section comes first: in TOML it would belong to the section before it.
    ordered = sorted(
        dataclasses.fields(cls), key=lambda one: dataclasses.is_dataclass(hints[one.name])
    )
    for one in ordered:
        hint = hints[one.name]
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), one.name)
        else:
            kind, choices = _kind(hint)
            yield Leaf(section, one.name, kind, choices, one.default, one.metadata["help"])


def _kind(hint: Any) -> tuple[type, tuple[str, ...]]:
    """Returns the type of a field's value that is not None, and the choices of a Literal."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [one for one in typing.get_args(hint) if one is not types.NoneType]
    if typing.get_origin(hint) is typing.Literal:
        return str, typing.get_args(hint)
    return hint, ()


def _add_flag(group: Any, leaf: Leaf) -> None:
    default = _toml(leaf.default).strip('"')
    about = leaf.help if leaf.default is None else f"{leaf.help} (default: {default})"
    # A flag that is not given leaves no trace: what is below it then decides.
    common: dict[str, Any] = {"dest": leaf.path, "default": argparse.SUPPRESS, "help": about}
    if leaf.kind is bool:
        group.add_argument(leaf.flag, action=argparse.BooleanOptionalAction, **common)
    elif leaf.choices:
        group.add_argument(leaf.flag, choices=leaf.choices, **common)
    else:
        metavar = "TEXT" if leaf.kind is str else "N"
        group.add_argument(leaf.flag, type=leaf.kind, metavar=metavar, **common)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_edited(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:  # also of its encoding, or thousands of digits
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[Leaf, object]]:
    known = {leaf.variable: leaf for leaf in leaves()}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name == TOKEN:
            continue
        if name not in known:
            raise ConfigError(f"{name}: no such setting{_nearest(name, known)}; unset it")
        if text:
            try:
                yield known[name], known[name].read(text)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None


def _nearest(name: str, known: Mapping[str, Leaf]) -> str:
    # Compared without the prefix, which makes all of them alike.
    words = [one.removeprefix(PREFIX) for one in known]
    near = get_close_matches(name.removeprefix(PREFIX), words, n=1)
    return f" (did you mean {PREFIX}{near[0]}?)" if near else ""


def _is_in(tree: Mapping[str, Any], leaf: Leaf) -> bool:
    section = tree.get(leaf.section, {}) if leaf.section else tree
    return isinstance(section, dict) and leaf.name in section


def _checked(tree: dict[str, Any], file: Path | None, origins: Mapping[str, str]) -> Settings:
    try:
        return parse(Settings, tree)
    except (ValueError, ConfigError) as error:
        origin = origins.get(str(error).partition(":")[0])
        # What parse itself refuses is of the file, but for numbers that no flag can have.
        if isinstance(error, ValueError) and (origin is None or origin.startswith("file ")):
            raise ConfigError(f"{file}: {error}") from None
        raise ConfigError(f"{error} (from {origin})" if origin else str(error)) from None


def _read_boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"expected true or false, got {text!r}")
    return _BOOLEANS[text.lower()]


def _toml(value: object) -> str:
    # As in JSON, but for one character that only JSON takes as it is.
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
    return shown.replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
