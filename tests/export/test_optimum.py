import importlib

import pytest

from trunkline.errors import MissingExtra


def test_without_optimum_one_line_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"pip install .*\[optimum\]'"):
        importlib.import_module("trunkline_export.optimum")
