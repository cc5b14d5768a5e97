"""What every fault is tried on: versions of a bundle, the oracle about them, a place to write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.serving.oracle import Oracle
from tests.faults.serving.versions import reversioned
from trunkline.bundle import open_bundle
from trunkline_serve.launch import Launched, serving

VERSIONS = 3


@dataclass(frozen=True)
class FaultFixture:
    """What faults are tried on.

    Attributes:
        versions: A bundle for each version, oldest first.
        oracle: What they answer.
        scratch: A folder to write to.
        size: How much to try, as a factor: 1 for the report, less for tests.
    """

    versions: Sequence[Path]
    oracle: Oracle
    scratch: Path
    size: float

    def times(self, count: int) -> int:
        """Returns how often to do what the report does `count` times."""
        return max(1, round(count * self.size))

    def serving(
        self, *flags: object, module: str = "trunkline", log: Path | None = None
    ) -> AbstractContextManager[Launched]:
        """Runs a server of the oldest version."""
        graph = ("--graph", self.oracle.graph, "--threads", 2)
        return serving([self.versions[0]], *graph, *flags, module=module, log=log)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Makes a folder for bundles that come and go."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            yield Path(folder)

    def copy(self, version: int, folder: Path, name: str) -> Path:
        """Puts a copy of a version into a folder, under a name."""
        return shutil.copytree(self.versions[version], folder / name)


@contextmanager
def fault_fixture(bundle: Path, size: float = 1.0, seed: int = 0) -> Iterator[FaultFixture]:
    """Makes other versions of a bundle, and learns what they answer."""
    with tempfile.TemporaryDirectory(prefix="trunkline-faults-") as scratch:
        own, folder = open_bundle(bundle).manifest.version, Path(scratch) / "versions"
        folder.mkdir()
        others = [
            reversioned(bundle, folder / f"v{version}", version)
            for version in range(own + 1, own + VERSIONS)
        ]
        versions = [bundle, *others]
        yield FaultFixture(versions, Oracle(versions, seed=seed), Path(scratch), size)
