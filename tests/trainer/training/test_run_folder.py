"""A run's folder: whose it is, and that nothing in it is believed that was damaged, nor lost on a full disk."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.runtime.errors import DataError, Interrupted, StorageError
from pipeline.runtime.files import sweep
from pipeline.runtime.tensor_files import read_tensor_file, write_tensor_file
from tests.support.paths import ROOT
from tests.support.training import NETWORKS, StopAfter, make_settings, make_shard, run_stack
from trainer.evaluation.metrics import Evaluation, Score
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Checkpoint, Run, find


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "model": "sshmvae", "data": "clusters", "labels": 6, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3,
        "networks": NETWORKS["sshmvae"],
    }  # fmt: skip
    return Settings.model_validate(values | changes)


def small_state(scale: float = 1.0) -> Checkpoint:
    g = torch.Generator().manual_seed(0)
    tensors = {
        "model.weight": scale * torch.randn(3, 4, generator=g),
        "model.transposed": torch.randn(2, 5, generator=g).T,
        "noise": g.get_state()[:40],
        "totals": torch.tensor([1e300, -0.0, float("nan")], dtype=torch.float64),
        "single": torch.tensor(7, dtype=torch.int64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    return Checkpoint(tensors, {"step": 12, "terms": ["J", "U: log p(x|ä)"], "device": "cpu"})


def large_state(value: int) -> Checkpoint:
    """Some 600 kB."""
    return Checkpoint({"model.weight": torch.full((150_000,), float(value))}, {"step": value})


# --- whose folder it is ----------------------------------------------------------------------------------------------


def test_a_run_is_found_again(tmp_path: Path) -> None:
    run = Run.prepare(tmp_path / "run", settings())
    assert not (tmp_path / "run").exists()  # nothing is written before training begins
    run.begin(["train-3", "Löffel 4"])
    again = Run.prepare(tmp_path / "run", settings())
    assert again.settings == run.settings
    assert Run.open(tmp_path / "run").settings == settings()
    assert (tmp_path / "run" / "labelled.txt").read_text(encoding="utf-8") == "train-3\nLöffel 4\n"
    assert (again.done, again.begun, again.metrics(), again.read_checkpoint()) == (False, False, [], None)


def test_another_runs_folder_is_refused_by_what_differs(tmp_path: Path) -> None:
    Run.prepare(tmp_path, settings(seed=3, alpha=0.5)).begin([])
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(DataError) as caught:
        Run.prepare(tmp_path, settings(seed=4, epochs=9, alpha=0.5))
    assert caught.value.message == (
        f"{tmp_path} holds a different run: asked for seed 4 instead of 3; epochs 9 instead of 2"
    )
    assert (tmp_path / "settings.json").read_bytes() == before


def test_other_files_are_not_written_among(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")  # an operating system's own
    Run.prepare(tmp_path, settings())
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds other files, but no run") as caught:
        Run.prepare(tmp_path, settings())
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"null",
        b'{"format": "new"}',
        b'{"format": 2}',
        b'{"format": 2, "model": "sshmvae"}',
        b'{"format": 2, "colour": "red"}',
    ],
    ids=lambda content: content.decode("latin1"),
)
def test_damaged_settings(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    for attempt in (lambda: Run.open(tmp_path), lambda: Run.prepare(tmp_path, settings())):
        with pytest.raises(DataError) as caught:  # the file is at fault, not the command
            attempt()
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run: there is no settings\.json in it"):
        Run.open(tmp_path)
    assert find([tmp_path, tmp_path / "not there"]) == []


def test_runs_are_found_below_a_folder_by_path(tmp_path: Path) -> None:
    for name in ("b/2", "a", "b/1"):
        Run.prepare(tmp_path / name, settings(seed=len(name))).begin([])
    assert [run.folder for run in find([tmp_path])] == [tmp_path / name for name in ("a", "b/1", "b/2")]
    assert [run.folder for run in find([tmp_path / "b", tmp_path / "b" / "1"])] == [
        tmp_path / name for name in ("b/1", "b/2")
    ]


# --- results and metrics ---------------------------------------------------------------------------------------------


def test_a_finished_run(tmp_path: Path) -> None:
    run = Run.prepare(tmp_path, settings())
    run.begin([])
    run.write_checkpoint(small_state())
    assert (run.begun, run.done) == (True, False)
    with pytest.raises(DataError, match="the run is not done"):
        run.result()
    evaluation = Evaluation((Score("x", "zeros", 1 / 3, 0.1, 0.05, 12), Score("x+w", "none", 1, 0, 0, 12)), -97.25)
    run.finish(evaluation)
    assert run.result() == evaluation
    assert (run.begun, run.done) == (False, True)
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"scores": 3, "elbo": 0}', '{"scores": [{"given": "x"}], "elbo": 0}']
)
def test_a_damaged_result(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(DataError) as caught:
        Run(tmp_path, settings()).result()
    assert str(tmp_path / "result.json") in caught.value.message


def test_labelled_ids_are_read_as_written(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    run = Run(tmp_path / "run", make_settings("ssmvae", shard))
    for ids in ([], ["a"], ["with\u2028separators\x85", "with\x0b\x1c", "and spaces "]):
        run.begin(ids)
        assert run.labelled_ids() == ids


def test_metrics_are_read_as_written(tmp_path: Path) -> None:
    run = Run(tmp_path, settings())
    rows = [{"epoch": epoch, "J": f"{-1.5 * epoch:.6g}", 'U: log p("w"|z,y)': "0"} for epoch in (1, 2)]
    run.write_metrics(rows)
    assert run.metrics() == [{key: str(value) for key, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    "content",
    [b"epoch,J\n2,1\n", b"epoch,J\n1,1\n1,1\n", b"J\n1\n", b"epoch,J\n1\n", b"epoch,J\n1,2,3\n", b"epoch,J\n1,\xff\n"],
    ids=lambda content: content.decode("latin1"),
)
def test_damaged_metrics(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        Run(tmp_path, settings()).metrics()
    assert str(tmp_path / "metrics.csv") in caught.value.message


def test_metrics_that_were_lost(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard)]
    with pytest.raises(Interrupted):
        run_stack(tmp_path, stack, [shard], StopAfter(7))
    (tmp_path / "0" / "metrics.csv").unlink()
    with pytest.raises(DataError, match="has lost the metrics of some epochs"):
        run_stack(tmp_path, stack, [shard])


# --- checkpoints and weights -----------------------------------------------------------------------------------------


def test_a_state_is_read_as_written(tmp_path: Path) -> None:
    state = small_state()
    write_tensor_file(tmp_path / "state", state)
    again = read_tensor_file(tmp_path / "state")
    assert again.values == state.values
    assert again.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        assert again.tensors[name].shape == tensor.shape
        assert torch.equal(
            again.tensors[name].contiguous().view(-1).view(torch.uint8), tensor.flatten().view(torch.uint8)
        )
    content = (tmp_path / "state").read_bytes()
    write_tensor_file(tmp_path / "state", again)
    assert (tmp_path / "state").read_bytes() == content


def test_a_state_that_was_being_written_is_swept_away(tmp_path: Path) -> None:
    """Whatever safetensors calls its own temporary file."""
    path = tmp_path / "state"
    write_tensor_file(path, small_state())
    content = path.read_bytes()
    killed = (
        "import os, sys; from pathlib import Path; import torch; from pipeline.runtime import tensor_files\n"
        "def save(tensors, target, metadata):\n"
        "    (Path(target).parent / '.tmpAbCdEf').write_bytes(b'half')\n"
        "    os._exit(9)\n"
        "tensor_files.save_file = save\n"
        "tensor_files.write_tensor_file(Path(sys.argv[1]), tensor_files.TensorFile({'a': torch.zeros(2)}, {}))"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(path)], cwd=ROOT, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    assert path.read_bytes() == content


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Every bit of the header's length, and one of every byte after it: never another state, never another error."""
    path = tmp_path / "state"
    write_tensor_file(path, small_state())
    good = path.read_bytes()
    rng = random.Random(0)
    places = [(byte, bit) for byte in range(8) for bit in range(8)]
    places += [(byte, rng.randrange(8)) for byte in range(8, len(good))]
    for byte, bit in places:
        bad = bytearray(good)
        bad[byte] ^= 1 << bit
        path.write_bytes(bad)
        with pytest.raises(DataError) as caught:
            read_tensor_file(path)
        assert caught.value.message.startswith(f"{path} is damaged")
        assert "the same command" in str(caught.value.hint)
    path.write_bytes(good)
    read_tensor_file(path)


def test_every_truncation_and_every_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_tensor_file(path, small_state())
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match="is damaged"):
            read_tensor_file(path)
    for tail in (b"\0", b"x" * 8, good):
        path.write_bytes(good + tail)
        with pytest.raises(DataError, match="is damaged"):
            read_tensor_file(path)
    for hole in range(0, len(good) - 16, 16):  # a block that was never written
        if good[hole : hole + 16] != bytes(16):
            path.write_bytes(good[:hole] + bytes(16) + good[hole + 16 :])
            with pytest.raises(DataError, match="is damaged"):
                read_tensor_file(path)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b'{"a": 1}', b"PK\x03\x04" + bytes(60)])
def test_other_files_are_no_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(DataError, match=r"not a safetensors file|or was not written by mmssl"):
        read_tensor_file(tmp_path / "state")


def test_a_state_of_another_program_is_none(tmp_path: Path) -> None:
    from safetensors.torch import save

    ours = [
        {"values": 1}, {"values": 1, "digest": ""}, {"values": "[]", "digest": ""}, {"values": "{", "digest": ""},
        {"values": ["{}"], "digest": ""}, {"values": "[" * 99_999, "digest": ""},
    ]  # fmt: skip
    others = [None, {"values": "{}"}, {"mmssl": "3"}, {"mmssl": "[]"}]
    for metadata in [*others, *({"mmssl": json.dumps(values)} for values in ours)]:
        (tmp_path / "state").write_bytes(save({"w": torch.zeros(2)}, metadata))
        with pytest.raises(DataError, match=r"not a safetensors file|or was not written by mmssl"):
            read_tensor_file(tmp_path / "state")


def test_a_state_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        read_tensor_file(tmp_path / "state")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot read"):
        read_tensor_file(tmp_path / "folder")


def test_a_damaged_checkpoint_is_not_trained_on(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard)]
    with pytest.raises(Interrupted):
        run_stack(tmp_path, stack, [shard], StopAfter(3))
    path = tmp_path / "0" / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        run_stack(tmp_path, stack, [shard])
    assert str(path) in caught.value.message
    path.unlink()  # what the hint says
    (run,) = run_stack(tmp_path, stack, [shard])
    assert run.done


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_previous_checkpoint(small_disk: Path) -> None:
    run = Run.prepare(small_disk / "run", settings())
    run.begin(["train-0"])
    run.write_checkpoint(large_state(1))
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    for _ in range(2):
        with pytest.raises(StorageError, match="the disk is full") as caught:
            run.write_checkpoint(large_state(2))
        assert str(run.folder / "checkpoint.safetensors") in caught.value.message
        assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.values["step"] == 1
    assert bool((checkpoint.tensors["model.weight"] == 1).all())


def test_a_disk_that_fills_while_training(small_disk: Path, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("sshmvae", shard)]
    (undisturbed,) = run_stack(tmp_path / "undisturbed", stack, [shard])
    with pytest.raises(Interrupted):
        run_stack(small_disk, stack, [shard], StopAfter(3))
    checkpoint = small_disk / "0" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize))
    with pytest.raises(StorageError, match="the disk is full"):
        run_stack(small_disk, stack, [shard], StopAfter(7))
    assert checkpoint.read_bytes() == before
    ballast.unlink()
    (run,) = run_stack(small_disk, stack, [shard])
    assert (run.folder / "weights.safetensors").read_bytes() == (
        undisturbed.folder / "weights.safetensors"
    ).read_bytes()


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    run = Run.prepare(small_disk / "run", settings())
    run.begin([])
    run.write_checkpoint(small_state())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="the disk is read-only"):
        run.write_checkpoint(small_state(2))
    with pytest.raises(StorageError, match="the disk is read-only"):
        run.begin([])
    with pytest.raises(StorageError, match="the disk is read-only"):
        Run.prepare(small_disk / "another", settings()).begin([])
    assert Run.prepare(small_disk / "run", settings()).read_checkpoint() is not None


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        Run.prepare(tmp_path / "file" / "run", settings()).begin([])
