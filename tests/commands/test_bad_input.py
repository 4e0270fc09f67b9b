"""What cannot work ends in one sentence that names the thing, exit code 2 for usage and 1 for failure, no traceback."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.datasets.digits import build
from tests.support.commands import Command, refused
from tests.support.small_networks import SSMVAE, as_toml
from trainer.training.run_folder import Run

FAST = ("--epochs", 1, "--config", "small.toml")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A good shard of the bundled digits, and small networks in small.toml."""
    (tmp_path / "small.toml").write_text(as_toml(SSMVAE))
    return build("hm-digits", tmp_path, tmp_path / "raw")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "sshmvea"), ("'sshmvea'", "did you mean sshmvae?")),
        (("train", "ssmvae", "--data", "cifar"), ("'cifar'", "hm-mnist")),
        (("train", "ssmvae", "--label-estimator", "soft"), ("--label-estimator", "'gumbel', 'exact'")),
        (("train", "ssmvae", "--set", "label_estimator=soft"), ("label_estimator", "'gumbel' or 'exact'")),
        (("train", "ssmvae", "--set", "precision=fp8"), ("precision", "bf16")),
        (("train", "ssmvae", "--preset", "imagenet"), ("'imagenet'", "'mnist', 'rgbd', 'digits'")),
        (("train", "ssmvae", "--lr", "-1"), ("learning_rate",)),
        (("train", "ssmvae", "--set", "temperature=0"), ("temperature",)),
        (("train", "ssmvae", "--epochs", "0"), ("epochs",)),
        (("train", "ssmvae", "--batch-size", "1"), ("batch_size",)),
        (("train", "ssmvae", "--labels", "many"), ("labels",)),
        (("train", "ssmvae", "--labels", "9"), ("9 labels cannot cover 10 classes",)),
        (("train", "ssmvae", "--seeds", "4..0"), ("--seeds 4..0", "empty")),
        (("train", "ssmvae", "--seeds", "a"), ("--seeds a", "0..4")),
        (("train", "ssmvae", "--seeds", "1,1"), ("--seeds 1,1", "twice")),
        (("train", "ssmvae", "--split", "0"), ("has no splits",)),
        (("train", "ssmvae", "--beta", "1"), ("ssmvae has no beta", "sshmvae-kl")),
        (("train", "ssmvae", "--modality", "depth"), ("no modality 'depth'", "x, w")),
        (("train", "ssmvae", "--device", "tpu"), ("'tpu'", "'auto', 'cpu', 'cuda'")),
        (("train", "ct-svm", "--modality", "x"), ("ct-svm needs two modalities", "sdgm")),
        (("train", "ct-svm", "--lr", "0.1"), ("ct-svm has no setting 'learning_rate'", "cotraining")),
        (("train", "cotraining", "--alpha", "1,10"), ("cotraining has no alpha",)),
        (("train", "jmvae", "--set", "objective=classifier"), ("jmvae has no classifier",)),
        (("preprocess", "nm-digits", "--rotation", "999"), ("999",)),
    ],
)
def test_usage_errors(mmssl: Command, arguments: tuple[object, ...], words: tuple[str, ...]) -> None:
    refused(mmssl(*arguments), 2, *words)


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (("train", "ssmvae", "--epoch", "3"), "--epoch", "mmssl train --help"),
        (("train", "ssmvae", "--precision", "fp32"), "--precision", "mmssl train --help"),
        (("trane",), "No such command 'trane'", "mmssl --help"),
        (("train", "ssmvae", "--epochs", "three"), "Invalid value for '--epochs'", "mmssl train --help"),
        (("train", "sshmvea"), "'sshmvea' is not one of", "did you mean sshmvae?"),
        (("train", "ssmvae", "--device", "gpu"), "Invalid value for '--device': 'gpu' is not one of", "cpu"),
        (("train", "ssmvae", "--label-estimator", "exakt"), "'exakt' is not one of", "did you mean exact?"),
        (("train", "ssmvae", "--jobs", "0"), "Invalid value for '--jobs'", "mmssl train --help"),
        (("train", "ssmvae", "--seeds"), "--seeds", "--help"),
        (("train",), "Missing argument", "mmssl train --help"),
        (("reproduce", "table1", "--data-only", "digits"), "'digits' is not one of", "mmssl reproduce --help"),
        (("extract", "--depth-encoding", "hha"), "'hha' is not one of", "mmssl extract --help"),
        (("shards", "inspekt"), "No such command 'inspekt'", "mmssl shards --help"),
        (("generate", "here", "--from", "x"), "Missing option '--to'", "mmssl generate --help"),
    ],
)
def test_what_the_parser_refuses_is_one_line_with_a_hint(
    mmssl: Command, arguments: tuple[object, ...], words: str, hint: str
) -> None:
    result = mmssl(*arguments)
    refused(result, 2, words)
    error, below = result.err.splitlines()
    assert error.startswith("error: ")
    assert "  " not in error
    assert below.startswith("hint: ")
    assert hint in below


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(mmssl: Command) -> None:
    refused(mmssl("train", "ssmvae", "--device", "cuda"), 2, "no CUDA device", "--device cpu")


def test_more_labels_than_exist(mmssl: Command, shard: Path) -> None:
    refused(
        mmssl("train", "ssmvae", "--data", shard, *FAST, "--labels", 5000), 1, "need 500 of class '0'", "which has 142"
    )


def test_a_settings_file_that_is_wrong(mmssl: Command, shard: Path) -> None:
    train = ("train", "ssmvae", "--data", shard, "--config", "wrong.toml")
    refused(mmssl(*train), 1, "no settings file wrong.toml")
    for text, code, words in (
        ("epochs = [", 1, ("wrong.toml",)),
        ("epoch = 3", 2, ("no setting 'epoch'", "epochs")),
        ('[networks]\n"q(y|X)" = "X-D5QR, DK"', 2, ("'D5QR' is not a layer",)),
        ('[networks]\n"q(y|X)" = "v-D5BR, DK"', 2, ("names the input 'v'",)),
        ('[networks]\n"q(y|X)" = "X-D5BR, D7"', 2, ("ends in 7 units, not 10",)),
        ('[networks]\n"q(u|X)" = "X-D5BR, D7"', 2, ("ssmvae has no network 'q(u|X)'",)),
    ):
        Path("wrong.toml").write_text(text)
        refused(mmssl(*train), code, *words)


def test_a_missing_shard(mmssl: Command) -> None:
    refused(mmssl("train", "ssmvae", "--data", "nowhere.h5"), 1, "nowhere.h5")
    refused(mmssl("shards", "verify", "nowhere.h5"), 1, "nowhere.h5")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        place = file["train/x"].id.get_chunk_info(0).byte_offset
    content[place + 100] ^= 1
    path.write_bytes(content)


def of_another_schema(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def with_nan(path: Path) -> None:
    rewritten(
        path, "train/w", lambda values: np.where(np.arange(values.size).reshape(values.shape) == 40, np.nan, values)
    )


def without_class_seven(path: Path) -> None:
    rewritten(path, "train/label", lambda labels: np.where(labels == 7, -1, labels))


def rewritten(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """As a stranger writes it: no checksums, no digest."""
    with h5py.File(path, "r+") as file:
        values = change(file[name][:])
        del file[name]
        file[name] = values
        del file.attrs["digest"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, ()),
        (flipped, ("train/x",)),
        (of_another_schema, ("schema",)),
        (empty, ()),
        (with_nan, ("train/w", "finite")),
    ],
)
def test_a_shard_that_is_none(
    mmssl: Command, shard: Path, damage: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    damage(shard)
    refused(mmssl("train", "ssmvae", "--data", shard, *FAST), 1, shard, *words)
    refused(mmssl("shards", "inspect", shard), 1, shard, *words)
    refused(mmssl("shards", "verify", shard), 1, shard, *words)


def test_a_class_with_no_label(mmssl: Command, shard: Path) -> None:
    without_class_seven(shard)
    refused(mmssl("train", "ssmvae", "--data", shard, *FAST, "--labels", "all"), 1, shard, "class 7")
    refused(mmssl("train", "ssmvae", "--data", shard, *FAST), 1, shard, "class 7")  # some labels are unknown, so all
    refused(mmssl("train", "ssmvae", "--data", shard, *FAST, "--labels", 100), 1, shard, "'7', which has 0")


def test_no_run_is_left_behind_where_training_could_not_begin(mmssl: Command, shard: Path) -> None:
    mmssl("train", "ssmvae", "--data", shard, *FAST, "--labels", 5000)
    assert mmssl("runs", "--json").json == []


def test_an_output_folder_that_holds_another_run_or_other_files(mmssl: Command, shard: Path) -> None:
    train = ("train", "ssmvae", "--data", shard, *FAST)
    assert mmssl(*train, "--out", "here").code == 0
    before = {path: path.read_bytes() for path in Path("here").iterdir()}
    refused(
        mmssl(*train, "--out", "here", "--lr", 0.01),
        1,
        "here holds a different run",
        "learning_rate 0.01 instead of 0.003",
    )
    assert {path: path.read_bytes() for path in Path("here").iterdir()} == before
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("...")
    refused(mmssl(*train, "--out", "mine"), 1, "mine holds other files")
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_evaluating_what_is_no_run_or_whose_shard_is_gone(mmssl: Command, shard: Path) -> None:
    refused(mmssl("evaluate", "nowhere"), 1, "nowhere holds no run")
    mmssl("train", "ssmvae", "--data", shard, *FAST, "--out", "run")
    other = build("nm-digits", shard.parent, shard.parent / "raw")
    shutil.copy(other, shard)
    refused(mmssl("evaluate", "run"), 1, shard, "is not the shard")
    shard.unlink()
    refused(mmssl("evaluate", "run"), 1, shard)


def test_a_disk_too_small_for_the_checkpoint(mmssl: Command, shard: Path, small_disk: Path) -> None:
    outcome = mmssl("train", "ssmvae", "--data", shard, "--epochs", 1, "--out", small_disk / "run")
    refused(outcome, 1, "the disk is full", small_disk / "run" / "checkpoint.safetensors")
    assert not list((small_disk / "run").glob("*.safetensors"))
    assert not list((small_disk / "run").glob(".*"))


def test_a_folder_that_may_not_be_looked_into(
    mmssl: Command, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a shard is looked for it is passed over; where a command needs it, that is said."""
    assert mmssl("train", "ssmvae", "--data", shard, *FAST).code == 0
    shard.rename(tmp_path / "moved.h5")
    listed = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "shards":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    (run,) = (tmp_path / "workspace" / "runs").iterdir()
    assert mmssl("evaluate", run, "--data", "moved.h5").code == 0
    monkeypatch.setattr(Run, "open", lambda folder, _: list(refuse(folder / "shards")))
    refused(mmssl("evaluate", run), 1, "shards: Permission denied", "ask its owner")


def test_the_current_folder_is_no_file_to_write(mmssl: Command, shard: Path) -> None:
    assert mmssl("train", "ssmvae", "--data", shard, *FAST).code == 0
    refused(mmssl("report", "--html", "."), 2, ". is a folder", "FILE")
    (run,) = Path("workspace/runs").iterdir()
    refused(mmssl("export", run, "--out", "."), 1, "exists and holds something else", "another folder")
