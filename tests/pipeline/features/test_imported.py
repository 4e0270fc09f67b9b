"""Features and the shard of imported pictures: rows that lack a camera, groups, few labels, and no splits."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features import executors, split_modality
from pipeline.features import extract as extraction_stage
from pipeline.features.encoder import Encoder, locate
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.split_modality import _chosen, _spread
from pipeline.images.store import ImageSettings, ImageStore
from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.shards.shard import Part, Shard
from tests.support.imported_pictures import FRAMES, Frame, import_pictures, picture
from tests.support.rgbd_frames import contents
from tests.support.tiny_vgg import WIDTH


def extract(root: Path, settings: FeatureSettings | None = None, **options: Any) -> list[Path]:
    """`mmssl extract --data mine` on the CPU with random weights."""
    all_options = {"weights": "random", "device": "cpu"} | options
    splits = all_options.pop("splits", ())
    images = all_options.pop("images", ImageSettings())
    return extraction_stage.extract("mine", root, splits, images, settings or FeatureSettings(), **all_options)


def rows_of(part: Part, ids: list[str]) -> list[int]:
    return [part.ids.tolist().index(name) for name in ids]


def test_the_shard_holds_what_was_imported(tmp_path: Path) -> None:
    store = import_pictures(tmp_path)
    (path,) = extract(tmp_path)
    assert path == tmp_path / "shards" / "mine.h5"
    shard = Shard.open(path)
    shard.verify()
    assert (shard.dataset, shard.split, shard.preset, shard.classes) == ("mine", None, None, ("cup", "hat"))
    assert [(m.name, m.width, m.distribution) for m in shard.modalities] == [
        ("rgb", WIDTH, "nonnegative"),
        ("depth", WIDTH, "nonnegative"),
    ]
    for part, chosen in ((shard.train, False), (shard.test, True)):
        frames = [frame for frame in FRAMES if frame.test is chosen]
        assert part.ids.tolist() == [
            name for name, frame in zip(store.ids, FRAMES, strict=True) if frame.test is chosen
        ]
        assert part.labels.tolist() == [frame.label for frame in frames]
        assert part.groups is not None
        assert part.groups.tolist() == [frame.group for frame in frames]
        for modality in ("rgb", "depth"):
            has = np.array([modality not in frame.lacks for frame in frames])
            np.testing.assert_array_equal(part.has(modality), has)
            features = part.features(modality)
            assert not features[~has].any()
            assert (features[has] > 0).any(axis=1).all()
    assert shard.train.labelled is not None
    assert shard.train.labelled.tolist() == [frame.label >= 0 for frame in FRAMES if not frame.test]
    provenance = shard.provenance
    assert (provenance["rgb"], provenance["depth"]) == ("RGB", "depth as jet")
    assert provenance["recipe"]["settings"] == {
        "seed": 0, "epochs": 0, "learning_rate": 1e-5, "batch_size": 32, "extract_batch": 64,
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(provenance)


def test_new_pictures_become_the_shards_own_rows(tmp_path: Path) -> None:
    import_pictures(tmp_path)
    (path,) = extract(tmp_path, FeatureSettings(epochs=2, batch_size=4, learning_rate=1e-3))
    shard = Shard.open(path)
    for modality in ("rgb", "depth"):
        encoder = Encoder.open(locate(shard, modality))
        assert encoder.recipe == shard.encoders[modality]
        for part in (shard.train, shard.test):
            numbers = [int(name.split()[1]) for name in part.ids]
            has = part.has(modality)
            pictures = [picture(tmp_path / "pictures", k, modality) for k in np.array(numbers)[has]]
            np.testing.assert_allclose(encoder(pictures), part.features(modality)[has], rtol=1e-4, atol=1e-5)


def test_without_a_test_part_and_without_groups(tmp_path: Path) -> None:
    import_pictures(tmp_path, [Frame(k % 2) for k in range(5)])
    (path,) = extract(tmp_path, keep_encoder=False)
    shard = Shard.open(path)
    assert (shard.train.rows, shard.test.rows, shard.train.groups, dict(shard.train.present)) == (5, 0, None, {})
    assert not shard.encoders
    assert {file.name for file in (tmp_path / "features" / "mine").iterdir()} == {"rgb.h5", "depth.h5"}


def test_a_camera_that_no_labelled_frame_has_is_not_fine_tuned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled = [Frame(k % 2, lacks=("depth",)) for k in range(4)]
    import_pictures(tmp_path, [*labelled, Frame(-1), Frame(-1)])
    tuned = FeatureSettings(epochs=2, batch_size=4, learning_rate=1e-2)
    (path,) = extract(tmp_path, tuned)
    assert "depth: fewer than two classes have a labelled training frame with it" in caplog.text
    (plain,) = extract(tmp_path, name="plain")
    one, other = Shard.open(path).train, Shard.open(plain).train
    np.testing.assert_array_equal(one.features("depth"), other.features("depth"))
    assert not np.allclose(one.features("rgb"), other.features("rgb"), rtol=1e-3)


def test_a_camera_that_only_test_frames_have_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_pictures(tmp_path, [*(Frame(k % 2, lacks=("depth",)) for k in range(4)), Frame(0, test=True)])
    (path,) = extract(tmp_path)
    assert "no training frame has depth, so it is left out" in caplog.text
    assert [modality.name for modality in Shard.open(path).modalities] == ["rgb"]


def test_frames_of_which_none_has_a_label_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_pictures(tmp_path, [Frame(-1) for _ in range(4)])
    (path,) = extract(tmp_path)
    train = Shard.open(path).train
    assert (train.labels == -1).all()
    assert not train.labelled.any()
    assert "mine: among its 0 labelled images there is none of" in caplog.text
    (tuned,) = extract(tmp_path, FeatureSettings(epochs=2, batch_size=4, learning_rate=1e-2), name="tuned")
    assert "fewer than two classes have a labelled training frame" in caplog.text
    np.testing.assert_array_equal(Shard.open(tuned).train.features("rgb"), train.features("rgb"))


def test_a_class_without_a_labelled_training_frame_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_pictures(tmp_path, [*(Frame(k % 2) for k in range(4)), Frame(2, test=True)], classes=("cup", "hat", "owl"))
    extract(tmp_path)
    assert "mine: among its 4 labelled images there is none of owl" in caplog.text


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([Frame(0), Frame(7)], "names frames or classes that there are not"),
        ([Frame(0, lacks=("depth",)), Frame(1, lacks=("depth",)), Frame(0, test=True, lacks=("rgb",))],
         "the frame frame 2 has no modality that training frames have"),
    ],
)  # fmt: skip
def test_too_little_to_learn_from_is_one_sentence(frames: list[Frame], words: str, tmp_path: Path) -> None:
    import_pictures(tmp_path, frames)
    with pytest.raises(DataError, match=words):
        extract(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "pictures"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"splits": (0,)}, UsageError, "mine has no splits"),
        ({"settings": FeatureSettings(labelled=0.5)}, UsageError, "mine keeps the labels it was imported with"),
        ({"images": ImageSettings(size=64)}, UsageError, "--size 64: mine was imported with 32"),
        ({"images": ImageSettings(depth_encoding="raw")}, UsageError, "--depth-encoding raw: mine was imported "),
        ({"backbone": "resnet5"}, UsageError, "--backbone resnet5: there is no such network"),
        ({"backbone": "squeezenet1_0"}, UsageError, "or it does not end in a linear layer"),
        ({"backbone": "alexnet"}, UsageError, "alexnet needs images of 64 x 64 pixels or more, not 32 x 32"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(
    options: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    import_pictures(tmp_path)
    with pytest.raises(error, match=words):
        extract(tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "pictures"}


def test_there_is_no_such_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the image store .*mine does not exist") as caught:
        extract(tmp_path)
    assert "mmssl data import SOURCE --name mine" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"--data \.\./mine: is no data set"):
        extraction_stage.extract("../mine", tmp_path, (), ImageSettings(), FeatureSettings(), weights="random")


def test_what_is_there_is_left_and_other_labels_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import_pictures(tmp_path)
    (path,) = extract(tmp_path)
    before = contents(tmp_path)
    caplog.set_level(logging.INFO)
    extract(tmp_path)
    assert "mine.h5 is there already" in caplog.text
    assert contents(tmp_path) == before
    import_pictures(tmp_path, [replace(frame, label=abs(frame.label)) for frame in FRAMES])
    with pytest.raises(DataError, match="holds results of other settings: rows ") as caught:
        extract(tmp_path)
    assert "move the old ones away" in str(caught.value.hint)
    import_pictures(tmp_path)
    with pytest.raises(DataError, match="settings: backbone vgg16, not resnet18"):
        extract(tmp_path, backbone="resnet18")
    import_pictures(tmp_path, [replace(frame, label=abs(frame.label)) for frame in FRAMES])
    path.unlink()  # without fine-tuning, labels do not change the features: the units are kept
    caplog.clear()
    extract(tmp_path)
    assert "features of" not in caplog.text
    labelled = Shard.open(path).train.labelled
    assert labelled is not None
    assert labelled.all()


def test_stopped_it_resumes_to_the_same(tmp_path: Path) -> None:
    import_pictures(tmp_path)
    settings = FeatureSettings(epochs=3, batch_size=4, learning_rate=1e-3)
    extract(tmp_path, settings)
    whole = contents(tmp_path)
    for folder in ("features", "shards"):
        shutil.rmtree(tmp_path / folder)

    def stop(*_: object) -> None:
        raise Interrupted("stopped")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        extract(
            tmp_path,
            settings,
            progress=lambda _, done, __: patch.setattr(executors, "check_stop", stop) if done == 2 else None,
        )
    assert (tmp_path / "features" / "mine" / "rgb.checkpoint.safetensors").exists()
    extract(tmp_path, settings)
    assert contents(tmp_path) == whole


def test_on_a_cluster_it_is_the_same(tmp_path: Path) -> None:
    import_pictures(tmp_path)
    settings = FeatureSettings(epochs=2, batch_size=4, learning_rate=1e-3)
    extract(tmp_path, settings)
    alone = contents(tmp_path)
    for folder in ("features", "shards"):
        shutil.rmtree(tmp_path / folder)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        extract(tmp_path, settings, scheduler=cluster.scheduler_address)
    assert contents(tmp_path) == alone


@pytest.mark.parametrize("modality", ["rgb", "depth"])
def test_one_camera_at_a_time_makes_the_same(modality: str, tmp_path: Path) -> None:
    import_pictures(tmp_path)
    assert extract(tmp_path, modalities=[modality]) == []
    extract(tmp_path)
    found = contents(tmp_path)
    for folder in ("features", "shards"):
        shutil.rmtree(tmp_path / folder)
    extract(tmp_path)
    assert contents(tmp_path) == found


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.data())
def test_rows_are_spread_among_zeros_however_they_come(mask: list[bool], data: st.DataObject) -> None:
    rows = np.array(mask)
    values = np.arange(1, rows.sum() + 1, dtype=np.float32)[:, None].repeat(2, axis=1)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(values)))) - {len(values)})
    spread = np.concatenate(list(_spread(np.split(values, cuts), rows)))
    expected = np.zeros((len(rows), 2), np.float32)
    expected[rows] = values
    np.testing.assert_array_equal(spread, expected)
    pixels = np.arange(len(rows), dtype=np.uint8)
    blocks = list(_chosen(np.split(pixels, cuts), rows)) if not cuts or cuts[-1] < len(rows) else []
    assert not blocks or np.concatenate(blocks).tolist() == pixels[rows].tolist()


def test_long_fine_tuning_is_told_when_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import_pictures(tmp_path)
    monkeypatch.setattr(split_modality, "_LONG_MINUTES", -1.0)
    extract(tmp_path, FeatureSettings(epochs=4, batch_size=2))
    assert caplog.text.count("rgb: fine-tuning takes about") == 1
    assert "--epochs take less (0: the weights as they are)" in caplog.text


def test_the_image_store_says_which_frames_have_a_camera(tmp_path: Path) -> None:
    import_pictures(tmp_path)
    store = ImageStore.open(tmp_path / "images" / "mine")
    assert store.has("depth").tolist() == ["depth" not in frame.lacks for frame in FRAMES]
