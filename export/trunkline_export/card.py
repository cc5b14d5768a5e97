"""The model card: README.md of a bundle, filled from its manifest."""

from __future__ import annotations

from trunkline.bundle import Gate, Manifest
from trunkline.tasks import TaskSpec


def model_card(manifest: Manifest) -> str:
    """Returns the model card as Markdown."""
    facts = manifest.encoder
    commit = manifest.provenance.get("encoder_commit")
    lines = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        "A multitask model: one encoder pass gives the answers of all tasks.",
        "",
        f"- Encoder: `{manifest.provenance.get('encoder', facts.model_type)}`"
        f"{f' (commit `{commit}`)' if commit else ''}, {facts.layers} layers,"
        f" {facts.parameters / 1e6:.1f} M parameters with heads",
        f"- Rows: at most {facts.max_length} tokens; longer texts are read in windows that overlap"
        f" by {facts.overlap}",
        f"- Trained: {manifest.provenance.get('trained', 'unknown')}",
        "",
        "| task | kind | labels |",
        "|---|---|---|",
        *map(_task_row, manifest.tasks),
        "",
        "## Data",
        "",
        *_data(manifest),
        "",
        "The licences of these data sets apply to what is made from them.",
        "",
        "## Scores",
        "",
        *_scores(manifest.gates),
        "",
        "## Use",
        "",
        "```python",
        "import trunkline",
        f'model = trunkline.load("{manifest.name}")',
        f'print(model.analyze("Some text."{_pair(manifest)}).to_dict())',
        "```",
        "",
    ]
    return "\n".join(lines)


def _task_row(spec: TaskSpec) -> str:
    kind = f"{spec.kind} of pairs" if spec.pair else spec.kind
    return f"| {spec.name} | {kind} | {', '.join(spec.labels) or '-'} |"


def _pair(manifest: Manifest) -> str:
    reads_pairs = any(spec.pair for spec in manifest.tasks)
    return ', text_pair="Another text."' if reads_pairs else ""


def _data(manifest: Manifest) -> list[str]:
    data = manifest.provenance.get("data")
    if not isinstance(data, dict):
        return ["Unknown."]
    return [f"- {task}: {', '.join(map(str, sources))}" for task, sources in data.items()]


def _scores(gates: tuple[Gate, ...]) -> list[str]:
    if not gates:
        return ["Not measured: it was exported without gates."]
    return [
        "On dev data, in points, through torch and through the exported graph.",
        "",
        "| graph | task | metric | torch | graph | examples | passed |",
        "|---|---|---|---|---|---|---|",
        *map(_score_row, gates),
    ]


def _score_row(gate: Gate) -> str:
    cells = (gate.graph, gate.task, gate.metric, f"{gate.reference:.2f}", f"{gate.value:.2f}")
    return f"| {' | '.join(cells)} | {gate.n} | {'yes' if gate.passed else 'no'} |"
