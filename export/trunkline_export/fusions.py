"""Counts operators: a fusion that did not happen, or int8 that became fp32, fails the export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from trunkline.session import open_session, session_options
from trunkline_export.packed import product_names, wanted_counts
from trunkline_export.packed_cuda import read_cuda_trunk, wanted_cuda_counts
from trunkline_export.parity import ParityError
from trunkline_export.trunk import read_trunk
from trunkline_train.model.multitask import MultitaskModel


def operators(path: Path) -> Counter[str]:
    """Returns how often each operator stands in a graph as it is stored."""
    model = onnx.load(path, load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def optimised_operators(path: Path) -> Counter[str]:
    """Returns how often each operator stands in a graph as onnxruntime runs it on the CPU."""
    with TemporaryDirectory() as aside:
        options = session_options(1)
        options.log_severity_level = 4  # it warns that the file will suit this machine only
        options.optimized_model_filepath = str(Path(aside) / "optimised.onnx")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        open_session(str(path), options)
        return operators(Path(options.optimized_model_filepath))


def check_fusions(path: Path, model: MultitaskModel, *, int8: bool = False, kept: int = 0) -> None:
    """Counts the operators of a packed graph, before and after onnxruntime's own optimisation.

    Args:
        path: The graph.
        model: What it was made of.
        int8: Whether its products are int8.
        kept: Products that stay in fp32.

    Raises:
        ParityError: There are more or fewer of an operator than the layers want.
    """
    trunk = read_trunk(model.encoder)
    wanted = wanted_counts(trunk)
    if int8:
        wanted["MatMulIntegerToFloat"] = len(product_names(trunk)) - kept
    for when, found in (("", operators(path)), (" after onnxruntime", optimised_operators(path))):
        # Behind int8 the bias is an addition, which onnxruntime takes into the activation.
        found["Gelu"] += found["BiasGelu"] + found["FastGelu"]
        _compare(f"{path.name}{when}", found, wanted)


def check_cuda_fusions(path: Path, model: MultitaskModel) -> None:
    """Counts the operators of a graph for CUDA as it is stored, by what its layers want.

    Raises:
        ParityError: There are more or fewer of an operator, or one that would run on the host.
    """
    _compare(path.name, operators(path), wanted_cuda_counts(read_cuda_trunk(model.encoder)))


def _compare(name: str, found: Counter[str], wanted: Counter[str]) -> None:
    for operator, count in wanted.items():
        if found[operator] != count:
            raise ParityError(f"{name}: {found[operator]} of operator {operator}, not {count}")
