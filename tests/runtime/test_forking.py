"""A forked process has none of its parent's threads: a loaded model runs there, or says why not."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trunkline.errors import RuntimeFault
from trunkline.forking import Workers
from trunkline.session import Session

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    # Python says from 3.12 on that threads are lost, which is what is tested.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
_WIDTH = 256


def in_a_fork(work: Callable[[], object]) -> int:
    """Does work in a forked process; returns its status, and ends it after ten seconds."""
    process = os.fork()
    if not process:
        signal.alarm(10)
        status = 1
        try:
            work()
            status = 0
        except AssertionError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that onnxruntime shares among its threads."""
    weight = np.random.default_rng(0).standard_normal((_WIDTH, _WIDTH)).astype(np.float32)
    shape = ["rows", _WIDTH]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = tmp_path_factory.mktemp("forking") / "product.onnx"
    onnx.save(model, file)
    return file


def test_threads_are_started_anew() -> None:
    workers = Workers(2, "test")
    assert list(workers.map(abs, [-1, 2])) == [1, 2]

    def work() -> None:
        assert list(workers.map(abs, [-3] * 20)) == [3] * 20

    assert in_a_fork(work) == 0
    assert list(workers.map(abs, [-1, 2])) == [1, 2]


def test_a_session_of_one_thread_runs_on(product: Path) -> None:
    session, feed = Session(product, ["x"], [], 1), {"x": np.ones((64, _WIDTH), np.float32)}
    wanted = session.run(["y"], feed)

    def work() -> None:
        assert np.array_equal(session.run(["y"], feed), wanted)

    assert in_a_fork(work) == 0


def test_a_session_of_several_threads_says_at_once_that_it_cannot(product: Path) -> None:
    session, feed = Session(product, ["x"], [], 3), {"x": np.ones((64, _WIDTH), np.float32)}
    wanted = session.run(["y"], feed)

    def work() -> None:
        with pytest.raises(RuntimeFault, match=r"before this process was forked.*; load the model"):
            session.run(["y"], feed)
        own = Session(product, ["x"], [], 3)
        assert np.array_equal(own.run(["y"], feed), wanted)

    assert in_a_fork(work) == 0
    assert np.array_equal(session.run(["y"], feed), wanted)


def test_a_session_of_several_threads_can_be_let_go(product: Path) -> None:
    sessions = [Session(product, ["x"], [], 3)]
    sessions[0].run(["y"], {"x": np.ones((64, _WIDTH), np.float32)})

    def work() -> None:
        sessions.clear()
        gc.collect()

    assert in_a_fork(work) == 0
