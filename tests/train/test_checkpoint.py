import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trunkline import Document, Question
from trunkline.errors import CheckpointError
from trunkline_train import checkpoint as module
from trunkline_train.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint

FILES = {"checkpoint.json", "config.json", "model.safetensors", "tokenizer.json"}
STATE = {"state.json", "state.safetensors"}
DOCUMENT = Document("Ada Brown lives in Saint-Denis.", (Question("Where does Ada Brown live?"),))


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A resumable checkpoint that may be broken."""
    return Path(shutil.copytree(trained / "last", tmp_path / "last"))


def stepped(checkpoint: Checkpoint) -> torch.optim.AdamW:
    """Returns an optimiser that has moments."""
    optimizer = torch.optim.AdamW(checkpoint.model.parameters(), lr=1e-9)
    for parameter in checkpoint.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    return message


def test_folder_holds_these_files_and_no_pickle(trained: Path) -> None:
    assert {file.name for file in (trained / "best").iterdir()} == FILES
    assert {file.name for file in (trained / "last").iterdir()} == FILES | STATE
    kinds = {file.suffix for file in trained.rglob("*") if file.is_file()}
    assert not kinds & {".bin", ".pkl", ".pt", ".pth", ".npy"}


def test_all_comes_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", checkpoint)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.tasks == checkpoint.tasks
    assert loaded.config == checkpoint.config
    assert loaded.progress == checkpoint.progress
    assert loaded.pad_id == checkpoint.pad_id
    assert loaded.encoder.to_json() == checkpoint.encoder.to_json()
    assert loaded.encoder.max_length == checkpoint.encoder.max_length
    before, after = checkpoint.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    analyses = [one.pipeline().analyze([DOCUMENT]) for one in (checkpoint, loaded)]
    assert analyses[0] == analyses[1]


def test_labels_stand_in_the_order_of_the_logits(checkpoint: Checkpoint) -> None:
    ner, qa = checkpoint.tasks
    assert ner.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert checkpoint.model.head("ner").linear.out_features == len(ner.labels)
    assert qa.labels == ()


def test_there_is_one_encoder_and_a_head_per_task(trained: Path) -> None:
    with safe_open(trained / "best" / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert {name.split(".")[0] for name in names} == {"encoder", "heads"}
    assert {name.split(".")[1] for name in names if name.startswith("heads.")} == {
        "task_ner",
        "task_qa",
    }
    assert sum(name.endswith("word_embeddings.weight") for name in names) == 1
    assert not [name for name in names if "pooler" in name]


def test_training_state_comes_back(copy: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(copy)
    optimizer = stepped(loaded)
    save_checkpoint(tmp_path / "c", loaded, optimizer)
    other = stepped(load_checkpoint(tmp_path / "c"))
    other.step()
    load_state(tmp_path / "c", other)
    before, after = (one.state_dict()["state"] for one in (optimizer, other))
    assert before.keys() == after.keys()
    for index, moments in before.items():
        assert moments.keys() == after[index].keys()
        assert all(torch.equal(moments[part], after[index][part]) for part in moments)


def test_a_runs_folder_loads_its_best(trained: Path) -> None:
    assert load_checkpoint(trained).progress == load_checkpoint(trained / "best").progress


def test_reading_a_run_whose_saving_died_writes_nothing_and_says_where_it_is(
    trained: Path, tmp_path: Path
) -> None:
    left = shutil.copytree(trained / "best", tmp_path / ".best.old")
    with pytest.raises(CheckpointError, match=f"is missing: .*mv {left} {tmp_path / 'best'}"):
        load_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".best.old"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file_is_one_clear_error(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert "is broken" in refusal(copy) or name in refusal(copy)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_truncated_file_is_one_clear_error(copy: Path, name: str, share: float) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(share * len(content))])
    assert "is broken" in refusal(copy)


def _change(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    meta = json.loads((folder / "checkpoint.json").read_text())
    change(meta)
    (folder / "checkpoint.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda meta: meta.update(format=99), "has format 99, not 3"),
        (lambda meta: meta.pop("tasks"), "is broken: KeyError: 'tasks'"),
        (lambda meta: meta.update(tasks=[3]), "is broken"),
        (lambda meta: meta["tasks"].pop(), "is broken"),
        (lambda meta: meta["tasks"][0]["labels"].pop(), "is broken"),
        (lambda meta: meta["tasks"][0].update(kind="parsing"), "unknown kind of task 'parsing'"),
        (lambda meta: meta["config"].update(extra=1), "checkpoint.json: extra: unknown key"),
        (lambda meta: meta["config"]["rows"].update(overlap=90), "overlap 90 does not fit"),
        (lambda meta: meta.update(progress=[]), "is broken"),
    ],
)
def test_altered_description_is_one_clear_error(
    copy: Path, change: Callable[[dict[str, object]], object], told: str
) -> None:
    _change(copy, change)
    assert told in refusal(copy)


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    told = "is neither a run nor a checkpoint: it has no checkpoint.json; check the path"
    assert told in refusal(tmp_path)
    assert "does not exist; check the path" in refusal(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{}")
    assert "is a bundle; give the run or checkpoint it was made from" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.safetensors", b"half"),
        ("state.safetensors", None),
        ("state.json", b"{"),
        ("state.json", b"{}"),
        ("state.json", None),
    ],
)
def test_broken_training_state_is_one_clear_error(
    copy: Path, name: str, content: bytes | None
) -> None:
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_state(copy, stepped(load_checkpoint(copy)))
    assert len(str(caught.value).splitlines()) == 1


def test_best_cannot_be_resumed(trained: Path) -> None:
    with pytest.raises(CheckpointError, match="no training state; resume from the folder 'last'"):
        load_state(trained / "best", stepped(load_checkpoint(trained)))


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_save_keeps_the_checkpoint_before(
    copy: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    loaded = load_checkpoint(copy)
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    save_file, calls = module.save_file, []

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        calls.append(path)
        save_file(tensors, path)
        if len(calls) == failing:  # the weights, or the optimiser's moments after them
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    loaded.progress.step += 1
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(copy, loaded, stepped(loaded))
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
    assert [file.name for file in copy.parent.iterdir()] == ["last"]
    assert load_checkpoint(copy).progress.step == loaded.progress.step - 1


def test_pairs_learned_in_the_other_order_are_refused(
    every_checkpoint: Checkpoint, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for name, one in (("pairs", every_checkpoint), ("texts", checkpoint)):
        save_checkpoint(tmp_path / name, one)
        meta = tmp_path / name / "checkpoint.json"
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 2}))
    assert "learned pairs with text_pair in front of the text" in refusal(tmp_path / "pairs")
    assert load_checkpoint(tmp_path / "texts").tasks == checkpoint.tasks
