"""An onnxruntime session, by default on the CPU, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trunkline.cpu import lacks_vnni
from trunkline.decode.numeric import Floats
from trunkline.device import CPU
from trunkline.errors import BundleError, ConfigError, RuntimeFault
from trunkline.forking import OfProcess
from trunkline.kinds import Output
from trunkline.subnormals import flushes, subnormals_as_zero
from trunkline.weights import hold_weights

Feed = Mapping[str, NDArray[np.int64]]
Provider = str | tuple[str, Mapping[str, str]]


class Session:
    """A graph, loaded. Thread-safe: any number of runs may go on at once.

    Args:
        path: The ONNX file.
        takes: Names of the inputs that can be given; the graph may want fewer.
        outputs: Outputs that the graph must have.
        threads: Threads of one run.
        providers: onnxruntime's, with their options; by default the CPU.

    Raises:
        BundleError: The graph cannot be loaded, lacks an output or wants another input.
        ConfigError: onnxruntime is installed twice.
    """

    def __init__(
        self,
        path: Path,
        takes: Collection[str],
        outputs: Sequence[Output],
        threads: int,
        *,
        providers: Sequence[Provider] = (CPU,),
    ) -> None:
        check_install()
        self._path = path
        options = session_options(threads)
        held = hold_weights(options, path) if list(providers) == [CPU] else None
        try:
            self._session = open_session(str(path), options, providers)
        except Exception as error:  # onnxruntime has an exception type per status, with no base
            reason = str(error).splitlines()[0]
            mend = f"export again, or update onnxruntime {onnxruntime.__version__}"
            raise BundleError(path, f"onnxruntime cannot load it: {reason}", mend) from None
        del held
        alone = threads == 1 and list(providers) == [CPU]
        self._bound = None if alone else OfProcess(self._session, str(path))
        missing = {output.name for output in outputs} - {
            o.name for o in self._session.get_outputs()
        }
        if missing:
            raise BundleError(path, f"graph lacks output {sorted(missing)[0]!r}", "export again")
        self._inputs = {given.name for given in self._session.get_inputs()}
        unknown = self._inputs - set(takes)
        if unknown:
            raise BundleError(path, f"graph wants input {sorted(unknown)[0]!r}", "export again")

    @property
    def provider(self) -> str:
        """The execution provider that is asked first."""
        return str(self._session.get_providers()[0])

    def run(self, outputs: Sequence[str], feed: Feed) -> list[Floats]:
        """Returns the named outputs; what the graph does not take of `feed` is left out.

        Raises:
            RuntimeFault: The graph cannot be run on it, such as a row longer than its positions;
                or it has threads, or a GPU, that this process lost when it was forked.
        """
        if self._bound is not None:
            self._bound.check()
        given = {name: value for name, value in feed.items() if name in self._inputs}
        try:
            with subnormals_as_zero():
                values: list[Floats] = self._session.run(list(outputs), given)
        except Exception as error:  # onnxruntime has an exception type per status, with no base
            reason = str(error).splitlines()[0]
            raise RuntimeFault(f"{self._path}: onnxruntime failed: {reason}") from None
        return values


def open_session(
    graph: str | bytes, options: onnxruntime.SessionOptions, providers: Sequence[Provider] = (CPU,)
) -> onnxruntime.InferenceSession:
    """Loads a graph; the calling thread's arithmetic stays as it was.

    Raises:
        Exception: onnxruntime cannot load it; it has an exception type per status, with no base.
    """
    with subnormals_as_zero():
        return onnxruntime.InferenceSession(
            graph, options, providers=list(providers), enable_fallback=0
        )


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Returns the options that graphs are opened with, by `open_session`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A pattern is kept for every shape that ever came; packs have a new one nearly each time.
    options.enable_mem_pattern = False
    # Idle threads must not take the cores from tokenising, decoding and gRPC.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if flushes():  # for onnxruntime's own threads, and like them the threads that call it
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if lacks_vnni():  # sums are exact then, at a fifth to a quarter more time (docs/adr/0013)
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def check_install() -> None:
    """Refuses two wheels of onnxruntime in one folder: they overwrite each other's files.

    Raises:
        ConfigError: Both are installed.
    """
    folders = [_folder(name) for name in ("onnxruntime", "onnxruntime-gpu")]
    if folders[0] is not None and folders[0] == folders[1]:
        raise ConfigError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other;"
            " pip uninstall both, then install the one you want"
        )


def _folder(package: str) -> Path | None:
    """Returns where a package's modules lie; one of another folder hides the others', no more."""
    try:
        return Path(str(metadata.distribution(package).locate_file(""))).resolve()
    except metadata.PackageNotFoundError:
        return None
