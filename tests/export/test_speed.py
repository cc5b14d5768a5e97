"""Operators are timed with the kernels that are served."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from trunkline import session
from trunkline.encode import bare_row
from trunkline_export import speed


@pytest.mark.parametrize("lacks", [True, False])
def test_operators_are_profiled_with_the_options_of_serving(
    quantised: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    opened: list[onnxruntime.SessionOptions] = []

    def noted(graph: str, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        opened.append(options)
        return session.open_session(graph, options)

    monkeypatch.setattr(session, "lacks_vnni", lambda: lacks)
    monkeypatch.setattr(speed, "open_session", noted)
    rows = [bare_row(np.arange(1, 9))]
    times = speed.operator_times(quantised / "graphs" / "packed-int8.onnx", rows)
    assert sum(times.values()) > 0
    (options,) = opened
    if lacks:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")
