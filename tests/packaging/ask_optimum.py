"""Exports and runs by optimum; test_optimum.py starts it in optimum's environment.

Arguments: a run to export and the folder to export it to, the inputs of a batch, then bundles. The
outputs of each graph go to a file named like its folder, beside the inputs.
"""

import sys
from pathlib import Path

import numpy as np
import transformers
from optimum.onnxruntime import ORTModelForCustomTasks

from trunkline.errors import TrunklineError
from trunkline_export.optimum import export_with_optimum, load_bundle

run, out, inputs, *bundles = map(Path, sys.argv[1:])
print("transformers", transformers.__version__)
export_with_optimum(run, out)
models = {out.name: ORTModelForCustomTasks.from_pretrained(out)}
models |= {bundle.name: load_bundle(bundle) for bundle in bundles}
with np.load(inputs) as given:
    batch = dict(given)
for name, model in models.items():
    np.savez(inputs.parent / f"{name}.npz", **model(**batch))
try:
    export_with_optimum(run, out)
except TrunklineError as error:
    print(error)
