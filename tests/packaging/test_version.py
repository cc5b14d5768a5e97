"""The changelog and the package agree on the version."""

import re
from pathlib import Path

import trunkline


def test_newest_changelog_entry_is_this_version(root: Path) -> None:
    headings = re.findall(r"^## \[(\d[^\]]*)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == trunkline.__version__
