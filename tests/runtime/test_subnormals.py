"""Numbers too small for full precision are zero to a graph, and to nothing else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trunkline.session import Session
from trunkline.subnormals import flushes, subnormals_as_zero

pytestmark = pytest.mark.skipif(not flushes(), reason="they are zero on x86-64 Linux alone")
_COUNT = 1 << 18  # enough for onnxruntime to share them among its threads
_TINY = np.full(_COUNT, 1e-30, np.float32), np.full(_COUNT, 1e-10, np.float32)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that multiplies number by number."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "y"], ["z"])], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = tmp_path_factory.mktemp("subnormals") / "product.onnx"
    onnx.save(model, file)
    return file


def run(session: Session) -> NDArray[np.float32]:
    (z,) = session.run(["z"], dict(zip("xy", _TINY, strict=True)))  # type: ignore[arg-type]
    return z


def own_product() -> float:
    """Returns what the calling thread makes of two such numbers."""
    return float((_TINY[0][:1] * _TINY[1][:1])[0])


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_are_the_same_from_every_thread_and_whichever_loads(
    product: Path, threads: int
) -> None:
    sessions = [Session(product, "xy", [], threads)]
    in_a_thread(lambda: sessions.append(Session(product, "xy", [], threads)))
    with ThreadPoolExecutor(2) as others:
        results = [run(one) for one in sessions] + list(others.map(run, sessions))
    assert [float(np.abs(z).max()) for z in results] == [0.0] * 4


@pytest.mark.parametrize("threads", [1, 3])
def test_the_thread_that_loads_and_runs_keeps_its_own_arithmetic(
    product: Path, threads: int
) -> None:
    session = Session(product, "xy", [], threads)
    assert own_product() > 0
    run(session)
    assert own_product() > 0
    with pytest.raises(RuntimeError), subnormals_as_zero():
        assert own_product() == 0
        raise RuntimeError
    assert own_product() > 0
