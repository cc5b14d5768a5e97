"""Pieces of HTML. Every text that comes in is escaped here; what goes out is HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2024; max-width: 62rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid #dde1e6;
  vertical-align: top; }
th { background: #f4f6f8; } td.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.pass { color: #116329; font-weight: 600; } .short { color: #a40e26; font-weight: 600; }
.head, .note { color: #57606a; font-size: .85rem; } code { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
@media print { body { max-width: none; } h2, figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """Returns a whole page.

    Args:
        title: Text.
        sections: HTML.
    """
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Returns a section with a heading; parts are HTML."""
    inside = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>"


def paragraph(text: str, kind: str = "note") -> str:
    """Returns a paragraph of text; none for an empty one."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def verdict(met: bool | None, text: str) -> Cell:
    """Returns a cell that says whether a bar is met; None says neither."""
    if met is None:
        return Cell(text)
    return Cell(text, "pass" if met else "short")


class Cell(str):
    """Text of a table's cell with a class of its own."""

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, text: str, kind: str = "") -> Cell:
        """Makes the text."""
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts; cells that look like numbers stand on the right."""
    if not rows:
        return ""
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    inside = f"<thead><tr>{top}</tr></thead>\n<tbody>{lines}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def _cell(text: str) -> str:
    given = text.kind if isinstance(text, Cell) else ""
    kind = given or ("number" if text[:1].isdigit() else "")
    mark = f' class="{kind}"' if kind else ""
    return f"<td{mark}>{escape(text)}</td>"


def facts(pairs: Mapping[str, str]) -> str:
    """Returns names and values of a result's head, small; the command as code."""
    parts = [
        f"{escape(name)}: <code>{escape(value)}</code>" for name, value in pairs.items() if value
    ]
    return f'<p class="head">{"<br>".join(parts)}</p>' if parts else ""


def picture(png: bytes, about: str) -> str:
    """Returns an image that is part of the page, with its text for those who do not see it."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(about, quote=True)}" src="data:image/png;base64,{data}">'
        "</figure>"
    )
