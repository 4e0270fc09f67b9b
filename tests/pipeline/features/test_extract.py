import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from distributed import LocalCluster
from safetensors.torch import save_file

from pipeline.datasets.resolve import shard_paths
from pipeline.datasets.washington import index_dataset
from pipeline.datasets.washington_splits import labelled_ids, split_frames, trials_of
from pipeline.features import extract as stage
from pipeline.features import split_modality as units
from pipeline.features import vgg
from pipeline.features.extraction import fc1
from pipeline.features.fine_tuning import FeatureSettings, fine_tune
from pipeline.features.vgg import Weights, make_network
from pipeline.images.preprocess import preprocess
from pipeline.images.store import ImageSettings, ImageStore
from pipeline.runtime.errors import DataError, Interrupted, StorageError, UsageError
from pipeline.runtime.processes import Process, this_process
from pipeline.shards.shard import Shard
from tests.support.rgbd_frames import ROOT, contents, python, write_frames
from tests.support.tiny_vgg import WIDTH, TinyVgg

IMAGES = ImageSettings(size=32)
SETTINGS = FeatureSettings(labelled=0.5, epochs=3, batch_size=4, learning_rate=1e-3, extract_batch=4)
FRAMES = 21


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workspace with an image store; not to be changed."""
    root = tmp_path_factory.mktemp("prepared")
    write_frames(root)
    preprocess("rgbd", root, IMAGES, workers=1)
    return root


@pytest.fixture
def root(prepared, tmp_path):
    subprocess.run(["cp", "-r", prepared / "images", tmp_path], check=True)
    return tmp_path


def extract(root, splits=(0,), settings=SETTINGS, **options):
    return stage.extract("rgbd", root, splits, IMAGES, settings, **({"weights": "random", "device": "cpu"} | options))


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """The files that splits 0 and 3 end as."""
    root = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(["cp", "-r", prepared / "images", root], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "vgg16", TinyVgg)
        extract(root, (0, 3))
    return contents(root)


def test_a_shard_holds_its_splits_features(root, prepared):
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
    network = make_network(Weights("random"), 3, vgg.seed_of(0, 3), torch.device("cpu"))
    chosen = labelled_ids(split, 0.5, seed=0)
    ordered = [name for name in store.ids if name in set(chosen)]
    labels = np.array([shard.classes.index(name.rsplit("_", 3)[0]) for name in ordered])
    fine_tune(network, store.images("depth", ordered), labels, SETTINGS, (3, "depth"), root / "none", {})
    rows = np.concatenate(list(fc1(network, store.blocks("depth"), 4)))
    place = {name: k for k, name in enumerate(store.ids)}
    for part in (shard.train, shard.test):
        np.testing.assert_array_equal(part.features("w"), rows[[place[name] for name in part.ids]])
        assert not np.array_equal(part.features("x"), part.features("w"))


def test_its_provenance_is_complete(root):
    (path,) = extract(root)
    provenance = Shard.open(path).provenance
    assert provenance["recipe"]["settings"] == SETTINGS.model_dump()
    assert provenance["recipe"]["weights"] == provenance["weights"] == "random"
    assert provenance["recipe"]["images"] == ImageStore.open(root / "images" / "rgbd-32").digest
    assert provenance["recipe"]["left out"] == {"bell_pepper": 1, "cup": 1, "hat": 2}
    assert provenance["computed on"] == {"x": "CPU, float32", "w": "CPU, float32"}
    assert provenance["images"]["settings"] == {"size": 32, "depth_encoding": "jet", "recipe": 1}
    assert {"torch", "torchvision", "numpy", "mmssl"} <= provenance["versions"].keys()
    assert "classifier[0:2]" in provenance["feature"]
    assert str(root) not in json.dumps(provenance)


def test_what_is_there_is_left_and_what_is_damaged_or_gone_is_made_again(root, undisturbed, monkeypatch, caplog):
    extract(root, (0, 3))
    assert contents(root) == undisturbed
    made = []
    compute = units.compute
    monkeypatch.setattr(stage, "compute", lambda unit, *rest: (made.append(unit.name), compute(unit, *rest)))
    extract(root, (0, 3))
    assert not made
    features, shard = root / "features" / "rgbd-32", root / "shards" / "rgbd-32-split-0.h5"
    shard.unlink()  # made of the units again
    extract(root, (0, 3))
    assert not made
    for path in (shard, features / "split-0-depth.h5"):
        path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))
    (features / "split-3-rgb.h5").unlink()  # not needed while its shard is there
    extract(root, (0, 3))
    assert made == ["split 0, depth"]
    assert caplog.text.count("it is made again") == 2
    extract(root, (3,), modalities=["rgb"])
    (root / "shards" / "rgbd-32-split-3.h5").unlink()
    extract(root, (3,))
    assert made == ["split 0, depth", "split 3, rgb"]
    assert contents(root) == undisturbed


def test_a_shard_waits_for_both_modalities(root, undisturbed, caplog):
    assert extract(root, (3,), modalities=["depth"]) == []
    assert "split 3: no shard yet, for rgb is missing" in caplog.text
    assert len(extract(root, (3,), modalities=["rgb"])) == 1
    assert contents(root / "shards")["rgbd-32-split-3.h5"] == undisturbed["shards/rgbd-32-split-3.h5"]


def test_results_of_other_settings_are_never_mixed(root):
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


def test_without_fine_tuning_the_weights_are_taken_as_they_are(root):
    (path,) = extract(root, settings=SETTINGS.model_copy(update={"epochs": 0}))
    store = ImageStore.open(root / "images" / "rgbd-32")
    network = make_network(Weights("random"), 3, vgg.seed_of(0, 0), torch.device("cpu"))
    rows = np.concatenate(list(fc1(network, store.blocks("rgb"), 4)))
    part = Shard.open(path).test
    np.testing.assert_array_equal(part.features("x"), rows[[store.ids.index(name) for name in part.ids]])


def test_names_stand_for_shards(root, prepared):
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


def test_every_step_is_told(root, caplog):
    caplog.set_level(logging.INFO)
    told = []
    extract(root, (3,), progress=lambda *one: told.append(one))
    labelled = Shard.open(root / "shards" / "rgbd-32-split-3.h5").train.labelled
    steps = 3 * -(-int(labelled.sum()) // 4)
    for modality in ("rgb", "depth"):
        tuning = [(done, total) for what, done, total in told if what == f"split 3, {modality}: fine-tuning"]
        assert tuning == [(k, steps) for k in range(1, steps + 1)]
        images = [(done, total) for what, done, total in told if what == f"split 3, {modality}: images"]
        assert images == [(min(4 * k, FRAMES), FRAMES) for k in range(1, -(-FRAMES // 4) + 1)]
    assert "split 3, rgb: done, 1 of 2" in caplog.text
    assert "split 3, depth: done, 2 of 2" in caplog.text


def test_without_anyone_to_tell_the_log_says_how_far_it_is(root, caplog, monkeypatch):
    monkeypatch.setattr(units, "_REPORT_SECONDS", -1.0)
    caplog.set_level(logging.INFO)
    extract(root, (3,))
    assert re.search(rf"split 3, depth: images, \d+ of {FRAMES}, [\d.]+/s, \d+ min left", caplog.text)
    assert re.search(r"split 3, depth: fine-tuning, \d+ of \d+, [\d.]+/s, \d+ min left", caplog.text)


# Bad input.


@pytest.mark.parametrize(
    ("splits", "options", "error", "words"),
    [
        ((10,), {}, UsageError, r"there is no split 10: they are 0\.\.9"),
        ((0, -1), {}, UsageError, "there is no split -1"),
        ((0,), {"modalities": ["rgb", "lidar"]}, UsageError, "there is no modality 'lidar'"),
        ((0,), {"name": "../elsewhere"}, UsageError, r"--name \.\./elsewhere"),
        ((0,), {"device": "tpu"}, UsageError, "no device 'tpu'"),
        ((0,), {"weights": "nowhere.pth"}, DataError, r"there is no file of weights nowhere\.pth"),
    ],
)
def test_bad_options_are_one_sentence(root, splits, options, error, words):
    with pytest.raises(error, match=words):
        extract(root, splits, **options)
    assert {path.name for path in root.iterdir()} == {"images"}


def test_no_store_and_a_damaged_one(root):
    with pytest.raises(DataError, match=r"the image store .* does not exist") as caught:
        stage.extract("rgbd", root, [0], ImageSettings(), SETTINGS, weights="random")
    assert "mmssl preprocess rgbd" in str(caught.value.hint)
    path = root / "images" / "rgbd-32" / "cup_4.h5"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cup_4\.h5: .*damaged"):
        extract(root)
    assert not list(root.glob("shards/*"))
    assert not list(root.glob("features/**/*.h5"))


def test_a_class_without_a_label_is_told(root, caplog):
    extract(root, settings=SETTINGS.model_copy(update={"labelled": 0.05}))
    assert "among its 1 labelled images there is none of" in caplog.text


def test_a_read_only_disk_is_one_sentence(small_disk, prepared):
    subprocess.run(["cp", "-r", prepared / "images", small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match=r"cannot write .*[Rr]ead-only"):
        extract(small_disk)
    assert {path.name for path in small_disk.iterdir()} == {"images"}


def test_wrong_weights_are_one_sentence(root, tmp_path):
    save_file({name: tensor for name, tensor in TinyVgg().state_dict().items() if name != "features.0.bias"},
              tmp_path / "less.safetensors")  # fmt: skip
    with pytest.raises(DataError, match=r"less\.safetensors: is not of a VGG16: features\.0\.bias is missing"):
        extract(root, weights=str(tmp_path / "less.safetensors"))
    wrong = TinyVgg().state_dict() | {"classifier.0.weight": torch.zeros(WIDTH, 7)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"wrong\.safetensors: .*classifier\.0\.weight has the shape \(12, 7\)"):
        extract(root, weights=str(tmp_path / "wrong.safetensors"))
    place = root / "raw" / "vgg16" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"other bytes than the manifest's")
    with pytest.raises(DataError, match=r"vgg16-397923af\.pth"):
        extract(root, weights="imagenet")
    assert not list(root.glob("features/*/*.h5"))


def test_a_category_or_a_trial_that_is_missing_is_one_sentence(prepared, tmp_path):
    def store_of(change):
        root = tmp_path / change.__name__
        root.mkdir()
        subprocess.run(["cp", "-r", prepared / "raw", root / "raw"], check=True)
        change(root / "raw" / "rgbd-dataset")
        preprocess("rgbd", root, IMAGES, workers=1)
        return root

    def without_a_category(folder):
        shutil.rmtree(folder / "cup")

    def without_trials(folder):
        text = (folder / "testinstance_ids.txt").read_text()
        (folder / "testinstance_ids.txt").write_text(text[: text.index("****** trial 4")])

    with pytest.raises(DataError, match="trial 1 has categories that the data lacks: cup") as caught:
        extract(store_of(without_a_category))
    assert "mmssl data fetch" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"there is no split 3: they are 0\.\.2"):
        extract(store_of(without_trials), (0, 3))


def test_a_full_disk_leaves_nothing_half_written(small_disk, prepared):
    subprocess.run(["cp", "-r", prepared / "images", small_disk], check=True)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8000))
    with pytest.raises(StorageError, match="the disk is full"):
        extract(small_disk)
    assert not [path for path in small_disk.rglob("*") if path.name.startswith(".") or "shards" in path.parts]
    for path in small_disk.glob("features/*/*"):  # whole ones alone
        with h5py.File(path) as file:
            assert file["fc1"].shape == (FRAMES, WIDTH)
            assert "digest" in file.attrs
    (small_disk / "ballast").unlink()
    assert len(extract(small_disk)) == 1


# Stopped, killed, and on a cluster.


def test_what_a_killed_run_leaves_at_its_worst_moments_is_cleared_away(root, undisturbed):
    extract(root, (3,))
    extract(root, (0,), modalities=["rgb"])
    dead = replace(this_process(), start=this_process().start + 1)  # a number that another process has now
    assert dead.gone
    unit = root / "features" / "rgbd-32" / "split-0-rgb.h5"
    # Killed after the unit's file and before its checkpoint's removal, while writing a unit, and while writing a shard.
    unit.with_suffix(".checkpoint.safetensors").write_bytes(b"whole, but not needed any more")
    unit.with_name(f".split-0-depth.h5.{dead}.partial").write_bytes(b"half")
    (root / "shards" / f".rgbd-32-split-0.h5.{dead}.partial").write_bytes(b"half")
    mine = root / "shards" / f".rgbd-32-split-9.h5.{this_process()}.partial"
    mine.write_bytes(b"of a process that is alive")
    extract(root, (0, 3))
    assert mine.exists()
    mine.unlink()
    assert contents(root) == undisturbed


def test_what_a_worker_leaves_that_died_of_a_unit_is_cleared_away(root, undisturbed):
    """While the command lives: another worker does the unit again, and nobody would look for the rest."""
    extract(root, (3,))
    folder = root / "features" / "rgbd-32"
    worker = Process("0123456789ab", 42, 7)  # of another host
    left = [folder / f".split-0-rgb.{kind}.{worker}.partial" for kind in ("h5", "checkpoint.safetensors")]

    def die(what, done, total):  # noqa: ARG001
        if what.startswith("split 0, rgb: "):
            for path in left:
                path.write_bytes(b"half")

    extract(root, (0, 3), progress=die)
    assert contents(root) == undisturbed


def test_a_dead_process_leaves_no_claim_behind_where_all_was_done(root, undisturbed):
    extract(root, (0, 3))
    unit = root / "features" / "rgbd-32" / "split-0-rgb.h5"
    die = f"import os; from pathlib import Path; from pipeline.runtime.leases import Lease; Lease().add(Path({str(unit)!r}).with_name('.{unit.name}.{'0' * 32}.lease')); os._exit(9)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", die], cwd=ROOT, check=False).returncode == 9
    assert list(root.rglob(".*.lease"))
    extract(root, (0, 3))
    assert not list(root.rglob(".*.lease"))
    assert contents(root) == undisturbed


RUN = """
import logging, sys, time
from pathlib import Path
from tests.support.tiny_vgg import TinyVgg
from pipeline.features import extract, fine_tuning, vgg
from pipeline.runtime.errors import MmsslError
from pipeline.images.store import ImageSettings

vgg.vgg16 = TinyVgg
fine_tuning._CHECKPOINT_SECONDS = 0.0  # one at every step
seed_of = fine_tuning.seed_of
fine_tuning.seed_of = lambda *purpose: (time.sleep(0.01), seed_of(*purpose))[1]  # a step takes its time
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
print("begun", flush=True)
settings = fine_tuning.FeatureSettings(labelled=0.5, epochs=3, batch_size=4, learning_rate=1e-3, extract_batch=4)
try:
    extract.extract(
        "rgbd", Path(sys.argv[1]), [0, 3], ImageSettings(size=32), settings, weights="random", device="cpu"
    )
except MmsslError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def begun(process):
    assert any(line == "begun\n" for line in process.stdout)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(root, undisturbed):
    chance = random.Random(1)
    kills = 0
    for _ in range(4):
        process = python(RUN, root)
        begun(process)
        time.sleep(chance.uniform(0.02, 0.5))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills  # it cannot be that all were done before
    process = python(RUN, root)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert contents(root) == undisturbed


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on(root, undisturbed, which):
    process = python(RUN, root)
    assert any("fine-tuning" in line for line in process.stdout)
    process.send_signal(which)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == Interrupted.exit_code, said
    assert f"stopped by {which.name}" in said
    extract(root, (0, 3))
    assert contents(root) == undisturbed


@pytest.fixture
def cluster(request):
    """A cluster inside this process, where the tiny network is in place; its address."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=False,
        dashboard_address="127.0.0.1:0",
        resources=request.param,
    ) as made:
        yield made.scheduler_address


@pytest.mark.parametrize("cluster", [{"GPU": 1}, None], indirect=True)
def test_on_a_cluster_it_is_the_same_and_a_worker_takes_one_at_a_time(root, undisturbed, cluster, monkeypatch):
    running, most = [], []
    compute = units.compute

    def watched(unit, stop):
        running.append(unit.name)
        most.append(len(running))
        compute(unit, stop)
        running.remove(unit.name)

    monkeypatch.setattr(stage, "compute", watched)
    told = []
    assert len(extract(root, (0, 3), scheduler=cluster, progress=lambda *one: told.append(one))) == 2
    assert told == [("units on the cluster", k, 4) for k in range(5)]
    assert len(most) == 4
    assert max(most) == 1  # both workers are in this process, and a process takes one at a time
    assert contents(root) == undisturbed


@pytest.mark.parametrize("cluster", [None], indirect=True)
def test_a_request_to_stop_reaches_the_cluster(root, cluster, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.cluster._DISTANT_POLL", 0.0)
    ended = []

    def endless(unit, stop):
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                stop()
                time.sleep(0.02)
        except Interrupted:
            ended.append(unit.name)
            raise

    monkeypatch.setattr(stage, "compute", endless)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        extract(root, (0,), scheduler=cluster)
    timer.join()
    deadline = time.monotonic() + 10
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended


# The real network, through the real commands.


@pytest.mark.slow
def test_the_commands_with_the_real_network(prepared, tmp_path):
    def mmssl(*arguments):
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
