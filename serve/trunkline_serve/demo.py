"""`trunkline demo`: the whole path once, by the commands a user would give, each shown."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trunkline
from trunkline import Document, DocumentResult, Question
from trunkline.errors import TrunklineError
from trunkline.extras import missing
from trunkline.files import write_whole
from trunkline.options import new_folder
from trunkline_serve.client import Client
from trunkline_serve.launch import serving

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_STAMP = "made-from.txt"

_DOCUMENTS = (
    Document("Siemens and the University of Lagos opened a laboratory in Ibadan on Monday."),
    Document("Wangari Maathai of Kenya was awarded the Nobel Peace Prize in Oslo."),
    Document("FC Porto beat Ajax in Lisbon, and Portuguese fans sang until Sunday."),
    Document(
        "The Øresund Bridge links Copenhagen in Denmark with Malmö in Sweden. It was opened on"
        " 1 July 2000 after five years of work, and its bridge section is 7,845 metres long. The"
        " Danish engineer George Rotne designed it.",
        (
            Question("When did the bridge open?"),
            Question("How long is the bridge section?"),
            Question("Who designed the bridge?"),
        ),
    ),
    Document(
        "Caffeine was first isolated by the German chemist Friedlieb Runge in 1819. A cup of"
        " filter coffee holds about 95 milligrams of it, a cup of black tea roughly half as much.",
        (
            Question("Who first isolated caffeine?"),
            Question("How much caffeine is in a cup of filter coffee?"),
        ),
    ),
)


def demo(argv: Sequence[str]) -> int:
    """Trains, exports, verifies, serves, asks and measures; returns the exit status.

    What is done already, from the same corpus and encoder, is not done again.

    Raises:
        MissingExtra: The training room's packages are not installed.
        TrunklineError: A step failed; its own message is on stderr.
    """
    parser = argparse.ArgumentParser("trunkline demo", description="Run the whole path once.")
    parser.add_argument("--encoder", default=ENCODER, help="name on the hub, or a folder")
    parser.add_argument("--out", type=new_folder, default=Path("runs/demo"))
    given = parser.parse_args(argv)
    begin = time.monotonic()
    config = _corpus() / "demo.toml"
    _forget_other(given.out, _fingerprint(config.parent, given.encoder))
    bundle = given.out / "bundle"
    if not bundle.exists():
        _train(config, given.encoder, given.out / "run")
        _trunkline("export", given.out / "run", "--out", bundle)
    _trunkline("verify", bundle)
    _ask(bundle)
    print(f"\ndone in {time.monotonic() - begin:.0f} s; the bundle is {bundle}", flush=True)
    return 0


def _train(config: Path, encoder: str, run: Path) -> None:
    resume = ["--resume"] if (run / "last").exists() else []
    _trunkline("train", config, "--set", f"encoder={encoder}", "--out", run, *resume)


def _ask(bundle: Path) -> None:
    print(f"\n$ trunkline serve {bundle} --port 0", flush=True)
    with serving([bundle]) as server:
        print(f"serving on {server.address}; asking over gRPC:\n", flush=True)
        with Client(server.address) as client:
            results: list[DocumentResult] = client.analyze(_DOCUMENTS)
        print("\n\n".join(map(str, results)), flush=True)
    _measure(bundle)


def _measure(bundle: Path) -> None:
    try:
        _trunkline("bench", bundle, "--seconds", "3", "--rounds", "3")
    except TrunklineError as error:
        # A crowded machine has no honest latency; all that was to be shown has been shown.
        print(f"no latency table: {error}", flush=True)


def _trunkline(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    print(f"\n$ trunkline {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "trunkline", *words], check=False).returncode
    if status:
        raise TrunklineError(f"trunkline {words[0]} ended with status {status}, see above")


def _corpus() -> Path:
    """Returns the folder of the corpus, which ships with the training room."""
    found = importlib.util.find_spec("trunkline_train")
    if found is None or importlib.util.find_spec("torch") is None:
        raise missing("torch", "train,export,serve")
    return Path(str((found.submodule_search_locations or [""])[0])) / "demo"


def _fingerprint(corpus: Path, encoder: str) -> str:
    digest = hashlib.sha256(f"{trunkline.__version__} {encoder}".encode())
    for file in sorted(corpus.iterdir()):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _forget_other(out: Path, fingerprint: str) -> None:
    """Clears what was made from another corpus, encoder or version."""
    stamp = out / _STAMP
    if stamp.exists() and stamp.read_text().strip() != fingerprint:
        shutil.rmtree(out / "run", ignore_errors=True)
        shutil.rmtree(out / "bundle", ignore_errors=True)
    write_whole(stamp, fingerprint + "\n")
