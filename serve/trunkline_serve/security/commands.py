"""The command `trunkline token`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trunkline.errors import ConfigError
from trunkline_serve.security.tokens import Entry, digest_of, new_token


def token(argv: Sequence[str]) -> int:
    """Makes a new token; prints it once, and its entry for the file of tokens.

    Raises:
        ConfigError: The name or the rate makes no sense.
    """
    given = _parser().parse_args(argv)
    secret = new_token()
    try:
        entry = Entry(sha256=digest_of(secret), **vars(given))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(f"{secret}\n\n{_toml(entry)}")
    print("The first line is the token: it is not kept. The rest is for the file.", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline token", description="Make a token for callers of a server, and its entry."
    )
    parser.add_argument("name", metavar="NAME", help="whose token it is")
    parser.add_argument(
        "--admin", action="store_true", help="it also permits to load and unload models"
    )
    parser.add_argument(
        "--calls-per-second", type=float, metavar="N", help="calls it is good for; default: any"
    )
    parser.add_argument(
        "--burst", type=int, metavar="N", help="calls at once; default: those of a second"
    )
    return parser


def _toml(entry: Entry) -> str:
    """Returns an entry as it stands in the file; what has no value is left out."""
    lines = [f'name = "{entry.name}"', f'sha256 = "{entry.sha256}"']
    if entry.admin:
        lines.append("admin = true")
    limits = {"calls_per_second": entry.calls_per_second, "burst": entry.burst}
    lines += [f"{name} = {value}" for name, value in limits.items() if value is not None]
    return "\n".join(["[[token]]", *lines])
