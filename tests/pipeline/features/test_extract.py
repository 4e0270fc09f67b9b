"""The shards that extraction makes, what is left alone, what is made again, and how far the work is."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.datasets.resolve import shard_paths
from pipeline.datasets.washington_index import index_dataset
from pipeline.datasets.washington_splits import labelled_ids, split_frames, trials_of
from pipeline.features import executors, split_modality
from pipeline.features.fine_tuning import fine_tune
from pipeline.features.noise import seed_of
from pipeline.features.vgg import make_network
from pipeline.features.weights import Weights
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Shard
from tests.support.extraction import FRAMES, SETTINGS, extract, fc1
from tests.support.paths import ROOT
from tests.support.rgbd_frames import contents
from tests.support.tiny_vgg import WIDTH


def test_a_shard_holds_its_splits_features(root: Path, prepared: Path) -> None:
    paths = extract(root, (3, 0))
    assert [path.name for path in paths] == ["rgbd-32-split-3.h5", "rgbd-32-split-0.h5"]
    index = index_dataset(prepared / "raw")
    split = split_frames(index, trials_of(prepared / "raw"), 3)
    shard = Shard.open(paths[0])
    shard.verify()
    assert shard.dataset == "rgbd-32"
    assert shard.split == 3
    assert shard.classes == ("bell_pepper", "cup", "hat")
    assert [(m.name, m.width, m.distribution) for m in shard.modalities] == [
        ("x", WIDTH, "nonnegative"),
        ("w", WIDTH, "nonnegative"),
    ]
    assert shard.train.ids.tolist() == [frame.id for frame in split.train]
    assert shard.test.ids.tolist() == [frame.id for frame in split.test]
    assert {name.rsplit("_", 2)[0] for name in shard.test.ids} == {"bell_pepper_2", "cup_4", "hat_3"}
    assert set(shard.train.ids[shard.train.labelled]) == set(labelled_ids(split, 0.5, seed=0))
    assert [shard.classes[k] for k in shard.train.labels] == [frame.category for frame in split.train]
    # The same by hand, for depth.
    store = ImageStore.open(root / "images" / "rgbd-32")
    network = make_network(Weights("random"), 3, seed_of(0, 3), torch.device("cpu"))
    chosen = labelled_ids(split, 0.5, seed=0)
    ordered = [name for name in store.ids if name in set(chosen)]
    labels = np.array([shard.classes.index(name.rsplit("_", 3)[0]) for name in ordered])
    fine_tune(network, store.images("depth", ordered), labels, SETTINGS, (3, "depth"), root / "none", {})
    rows = np.concatenate(list(fc1(network, store.blocks("depth"), 4)))
    place = {name: k for k, name in enumerate(store.ids)}
    for part in (shard.train, shard.test):
        np.testing.assert_array_equal(part.features("w"), rows[[place[name] for name in part.ids]])
        assert not np.array_equal(part.features("x"), part.features("w"))


def test_its_provenance_is_complete(root: Path) -> None:
    (path,) = extract(root)
    provenance = Shard.open(path).provenance
    assert provenance["recipe"]["settings"] == SETTINGS.identity()
    assert provenance["recipe"]["weights"] == provenance["weights"] == "random"
    assert provenance["recipe"]["images"] == ImageStore.open(root / "images" / "rgbd-32").digest
    assert provenance["recipe"]["left out"] == {"bell_pepper": 1, "cup": 1, "hat": 2}
    assert provenance["computed on"] == {"x": "CPU, float32", "w": "CPU, float32"}
    assert provenance["images"]["settings"] == {"size": 32, "depth_encoding": "jet", "recipe": 1}
    assert {"torch", "torchvision", "numpy", "mmssl"} <= provenance["versions"].keys()
    assert "classifier[0:2]" in provenance["feature"]
    assert str(root) not in json.dumps(provenance)


def test_what_is_there_is_left_and_what_is_damaged_or_gone_is_made_again(
    root: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extract(root, (0, 3))
    assert contents(root) == undisturbed
    done = []
    compute = split_modality.compute
    monkeypatch.setattr(executors, "compute", lambda unit, *rest: (done.append(unit.name), compute(unit, *rest)))
    extract(root, (0, 3))
    assert not done
    features, shard = root / "features" / "rgbd-32", root / "shards" / "rgbd-32-split-0.h5"
    shard.unlink()  # made of the units again
    extract(root, (0, 3))
    assert not done
    for path in (shard, features / "split-0-depth.h5"):
        path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))
    (features / "split-3-rgb.h5").unlink()  # not needed while its shard is there
    extract(root, (0, 3))
    assert done == ["split 0, depth"]
    assert caplog.text.count("it is made again") == 2
    extract(root, (3,), modalities=["rgb"])
    (root / "shards" / "rgbd-32-split-3.h5").unlink()
    extract(root, (3,))
    assert done == ["split 0, depth", "split 3, rgb"]
    assert contents(root) == undisturbed


def test_a_shard_waits_for_both_modalities(
    root: Path, undisturbed: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert extract(root, (3,), modalities=["depth"]) == []
    assert "split 3: no shard yet, for rgb is missing" in caplog.text
    assert len(extract(root, (3,), modalities=["rgb"])) == 1
    assert contents(root / "shards")["rgbd-32-split-3.h5"] == undisturbed["shards/rgbd-32-split-3.h5"]


def test_results_of_other_settings_are_never_mixed(root: Path) -> None:
    extract(root)
    other = SETTINGS.model_copy(update={"epochs": 1, "seed": 2})
    with pytest.raises(DataError, match=r"holds results of other settings: .*settings seed 0, not 2") as caught:
        extract(root, settings=other)
    assert "--name" in str(caught.value.hint)
    (root / "shards" / "rgbd-32-split-0.h5").unlink()
    with pytest.raises(DataError, match=r"split-0-rgb\.h5 holds results of other settings: .*settings epochs 3, not 1"):
        extract(root, settings=other)
    (path,) = extract(root, settings=other, name="other")
    assert path == root / "shards" / "other-split-0.h5"
    assert shard_paths("other", [0], root) == [path]


def test_without_fine_tuning_the_weights_are_taken_as_they_are(root: Path) -> None:
    (path,) = extract(root, settings=SETTINGS.model_copy(update={"epochs": 0}))
    store = ImageStore.open(root / "images" / "rgbd-32")
    network = make_network(Weights("random"), 3, seed_of(0, 0), torch.device("cpu"))
    rows = np.concatenate(list(fc1(network, store.blocks("rgb"), 4)))
    part = Shard.open(path).test
    np.testing.assert_array_equal(part.features("x"), rows[[store.ids.index(name) for name in part.ids]])


def test_names_stand_for_shards(root: Path, prepared: Path) -> None:
    extract(root, (0, 3))
    assert [path.name for path in shard_paths("rgbd-32", [3, 0], root)] == ["rgbd-32-split-3.h5", "rgbd-32-split-0.h5"]
    with pytest.raises(UsageError, match="rgbd-32 has splits"):
        shard_paths("rgbd-32", [], root)
    with pytest.raises(DataError, match=r"there is no shard .*rgbd-32-split-1\.h5") as caught:
        shard_paths("rgbd-32", [0, 1, 2], root)
    assert "--split 1,2" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"there is no shard .*rgbd-split-0\.h5"):
        shard_paths("rgbd", [0], prepared)


# How far it is.


def test_every_step_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reports = []
    extract(root, (3,), progress=lambda *step: reports.append(step))
    labelled = Shard.open(root / "shards" / "rgbd-32-split-3.h5").train.labelled
    steps = 3 * -(-int(labelled.sum()) // 4)
    for modality in ("rgb", "depth"):
        tuning = [(done, total) for what, done, total in reports if what == f"split 3, {modality}: fine-tuning"]
        assert tuning == [(k, steps) for k in range(1, steps + 1)]
        images = [(done, total) for what, done, total in reports if what == f"split 3, {modality}: images"]
        assert images == [(min(4 * k, FRAMES), FRAMES) for k in range(1, -(-FRAMES // 4) + 1)]
    assert "split 3, rgb: done, 1 of 2" in caplog.text
    assert "split 3, depth: done, 2 of 2" in caplog.text


def test_without_anyone_to_tell_the_log_says_how_far_it_is(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_modality, "_REPORT_SECONDS", -1.0)
    caplog.set_level(logging.INFO)
    extract(root, (3,))
    assert re.search(rf"split 3, depth: images, \d+ of {FRAMES}, [\d.]+/s, \d+ min left", caplog.text)
    assert re.search(r"split 3, depth: fine-tuning, \d+ of \d+, [\d.]+/s, \d+ min left", caplog.text)


# The real network, through the real commands.


@pytest.mark.slow
def test_the_commands_with_the_real_network(prepared: Path, tmp_path: Path) -> None:
    def mmssl(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, ROOT / "cli.py", *arguments, "--root", tmp_path], capture_output=True, text=True
        )

    subprocess.run(["cp", "-r", prepared / "raw", tmp_path], check=True)
    done = mmssl("preprocess", "rgbd", "--size", "32", "--workers", "1")
    assert done.returncode == 0, done.stderr
    command = ["extract", "--size", "32", "--split", "1", "--weights", "random", "--labelled", "0.5", "--epochs", "1"]
    done = mmssl(*command)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "shards" / "rgbd-32-split-1.h5"
    assert done.stdout.strip() == str(path)
    shard = Shard.open(path)
    assert [m.width for m in shard.modalities] == [4096, 4096]
    assert len(shard.train.ids) + len(shard.test.ids) == FRAMES
    for name in ("x", "w"):
        features = shard.train.features(name)
        assert 0.05 < (features > 0).mean() < 0.95
        assert len(np.unique(features, axis=0)) == len(features)
    assert "is there already" in mmssl(*command).stderr
    done = mmssl("extract", "--size", "32", "--split", "0..10", "--weights", "random")
    assert done.returncode == 2
    assert "error: there is no split 10: they are 0..9" in done.stderr
    assert "Traceback" not in done.stderr
