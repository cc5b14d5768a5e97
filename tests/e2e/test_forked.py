"""A model that was loaded, and has answered, before its process was forked."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import trunkline
from trunkline import Model
from trunkline.annotations import DocumentResult

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    # Python says from 3.12 on that threads are lost, which is what is tested.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
_SECONDS = 60
# Of many widths, so that they are many packs, on several threads.
TEXTS = [f"Ada Brown lives in Oslo. {'Bob Stone was born in Rome. ' * at}" for at in range(6)]


@pytest.fixture(scope="module")
def packed(exported: Path) -> Model:
    model = trunkline.load(exported, 3, graph="packed-fp32")
    model.analyze(TEXTS)
    return model


class Answers:
    """A data set that analyses a text when it is asked for one."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: int) -> list[DocumentResult]:
        return self._model.analyze(TEXTS)


def test_it_answers_in_a_pool_of_forked_processes(packed: Model) -> None:
    data, wanted = Answers(packed), packed.analyze(TEXTS)
    with multiprocessing.get_context("fork").Pool(
        2, initializer=_inherit, initargs=(data,)
    ) as pool:
        assert pool.map_async(_ask, range(2)).get(_SECONDS) == [wanted, wanted]


_inherited: list[Answers] = []


def _inherit(data: Answers) -> None:
    _inherited.append(data)


def _ask(at: int) -> list[DocumentResult]:
    return _inherited[0][at]


def test_it_answers_in_the_workers_of_a_data_loader(packed: Model) -> None:
    loader = DataLoader(
        Answers(packed),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=_SECONDS,
    )
    wanted = packed.analyze(TEXTS)
    assert list(loader) == [wanted, wanted]


# Like a server that loads and tries its model, and then forks its workers (gunicorn --preload).
PRELOAD = """
import os, signal, sys, trunkline

model = trunkline.load(sys.argv[1], 3, graph=sys.argv[2])
texts = ["Ada Brown lives in Oslo. " * (at + 1) for at in range(6)]
wanted = model.analyze(texts)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
signal.alarm(60)
try:
    print(model.analyze(texts) == wanted)
except trunkline.errors.RuntimeFault as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("graph", "said"),
    [("packed-fp32", "True"), ("padded-fp32", "was loaded before this process was forked")],
)
def test_a_preloaded_model_answers_or_says_why_not_and_its_process_ends_as_usual(
    exported: Path, graph: str, said: str
) -> None:
    command = [sys.executable, "-c", PRELOAD, str(exported), graph]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=2 * _SECONDS)
    assert said in done.stdout.decode()
    assert done.returncode == 0
