"""The rendered data set: its layout, its looks, its seed, and how hard it is."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier

from pipeline.datasets.washington import read_frame
from pipeline.datasets.washington_index import index_dataset
from pipeline.datasets.washington_splits import find_trials, labelled_ids, split_frames, trials_of
from pipeline.images.depth import encode_depth, fill_holes
from pipeline.images.resize import Bytes, resize_rgb
from pipeline.runtime.errors import DataError, StorageError, UsageError
from pipeline.sample.ray_caster import shoot
from pipeline.sample.render import CATEGORIES, Settings, draw_object, draw_view, render, settings_of


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten categories, three objects each, four views at three heights: 360 frames."""
    root = tmp_path_factory.mktemp("sample")
    render(root, objects_per_category=3, views=4)
    return root


def test_the_sample_has_the_official_layout(sample: Path) -> None:
    index = index_dataset(sample, strict=True)
    assert len(index.frames) == 10 * 3 * 3 * 4
    assert index.categories == tuple(sorted(category.name for category in CATEGORIES[:10]))
    assert {frame.video for frame in index.frames} == {1, 2, 4}
    assert sorted({frame.frame for frame in index.frames}) == [1, 6, 11, 16]
    assert find_trials(sample) == sample / "rgbd-dataset" / "testinstance_ids.txt"
    assert settings_of(sample / "rgbd-dataset") == {
        "categories": 10, "objects_per_category": 3, "views": 4, "seed": 0, "version": 1,
    }  # fmt: skip
    frame = index.frames[0]
    assert frame.mask is not None
    for path, mode in ((frame.rgb, "RGB"), (frame.depth, "I;16"), (frame.mask, "1")):
        with Image.open(path) as image:
            assert image.mode == mode


def test_every_frame_looks_like_the_sensors(sample: Path) -> None:
    shapes, missing = [], []
    for frame in index_dataset(sample).frames[::7]:
        crop = read_frame(frame, mask=True)
        assert crop.mask is not None
        assert crop.corner is not None
        object_depth, valid = crop.depth[crop.mask], crop.depth[crop.depth > 0]
        assert valid.min() > 500
        assert valid.max() < 1400
        assert (object_depth > 0).mean() > 0.7
        assert 0.2 < crop.mask.mean() < 0.95
        border = np.concatenate([crop.mask[0], crop.mask[-1], crop.mask[:, 0], crop.mask[:, -1]])
        assert not border.any()
        x, y = crop.corner
        assert 1 <= x <= 640 - crop.depth.shape[1] + 1
        assert 1 <= y <= 480 - crop.depth.shape[0] + 1
        if frame.category in ("bowl", "coffee_mug"):
            continue  # one looks into them
        filled = fill_holes(crop.depth)
        assert np.median(filled[crop.mask]) < np.median(filled[~crop.mask])
        shapes.append(crop.depth.shape)
        missing.append((crop.depth == 0).mean())
    aspects = [height / width for height, width in shapes]
    assert min(aspects) < 0.8
    assert max(aspects) > 1.6
    assert 0.02 < np.mean(missing) < 0.2


def test_all_ten_splits_work(sample: Path) -> None:
    index, trials = index_dataset(sample), trials_of(sample)
    assert len(trials) == 10
    for k in range(10):
        parts = split_frames(index, trials, k)
        assert (len(parts.train), len(parts.test)) == (240, 120)
        assert len(labelled_ids(parts)) == 12
    for category in index.categories:
        assert {trial[category] for trial in trials} == {1, 2, 3}


def test_a_seed_fixes_every_byte(tmp_path: Path) -> None:
    small: dict[str, Any] = {"categories": 3, "objects_per_category": 2, "views": 1}
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    done = []
    render(first, **small, seed=1, progress=lambda n, total: done.append((n, total)))
    render(again, **small, seed=1)
    render(other, **small, seed=2)
    assert digests(first) == digests(again)
    assert digests(first).keys() == digests(other).keys()
    differing = [name for name, digest in digests(first).items() if digests(other)[name] != digest]
    assert len(differing) > 0.7 * len(digests(first))
    assert done == [(n, 6) for n in range(1, 7)]


def test_a_frame_is_the_same_rendered_alone(sample: Path) -> None:
    settings = Settings(10, 3, 4, 0)
    frame = index_dataset(sample).objects["bowl", 2][5]
    place = [category.name for category in CATEGORIES].index("bowl")
    view, rng = draw_view(settings, place, 2, frame.video, (frame.frame - 1) // 5)
    shot, crop = shoot(*draw_object(settings, place, 2), view, rng), read_frame(frame, mask=True)
    np.testing.assert_array_equal(shot.rgb, crop.rgb)
    np.testing.assert_array_equal(shot.depth, crop.depth)
    np.testing.assert_array_equal(shot.mask, crop.mask)
    assert shot.corner == crop.corner


def test_a_sample_that_is_there_is_left_alone(tmp_path: Path) -> None:
    small: dict[str, Any] = {"categories": 2, "objects_per_category": 2, "views": 1}
    folder = render(tmp_path, **small)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert render(tmp_path, **small) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(DataError, match="another data set is there"):
        render(tmp_path, **(small | {"seed": 5}))
    (folder / "sample.json").unlink()
    with pytest.raises(DataError, match="another data set is there"):
        render(tmp_path, **small)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".rgbd-dataset.partial" / "coffee_mug" / "coffee_mug_1"
    left.mkdir(parents=True)
    (left / "coffee_mug_1_1_1_crop.png").write_bytes(b"half")
    folder = render(tmp_path, categories=2, objects_per_category=2, views=1)
    assert [path.name for path in tmp_path.iterdir()] == ["rgbd-dataset"]
    assert len(index_dataset(folder, strict=True).frames) == 12


def test_a_full_disk_leaves_no_data_set(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        render(small_disk, categories=10, objects_per_category=2, views=6)
    assert not any(small_disk.iterdir())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"categories": 1}, "2 to 12 categories, not 1"),
        ({"categories": 13}, "2 to 12 categories, not 13"),
        ({"objects_per_category": 1}, "at least 2"),
        ({"views": 0}, "at least one view"),
        ({"seed": -1}, "not negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        render(tmp_path, **wrong)
    assert not any(tmp_path.iterdir())


def test_each_camera_alone_falls_short_and_both_together_do_better(sample: Path) -> None:
    index, trials = index_dataset(sample), trials_of(sample)
    place = {frame.id: n for n, frame in enumerate(index.frames)}
    labels = np.array([index.categories.index(frame.category) for frame in index.frames])

    def gradients(grey: NDArray[Any]) -> NDArray[np.float64]:
        """[8 * 8 * 8] histogram of gradient directions, a coarse stand-in for a network's features."""
        dy, dx = np.gradient(grey.astype(np.float32)[2:-2, 2:-2])
        turn, size = ((np.arctan2(dy, dx) / np.pi + 1) * 4).astype(int) % 8, np.hypot(dx, dy)
        cells = [(size * (turn == k)).reshape(8, 18, 8, 18).sum((1, 3)) for k in range(8)]
        return np.ravel(cells) / (np.linalg.norm(cells) + 1e-6)

    def describe(pixels: Bytes) -> NDArray[np.float64]:
        small = np.asarray(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BOX))
        return np.concatenate([small.ravel() / 255, 6 * gradients(pixels.mean(2))])

    crops = [read_frame(frame) for frame in index.frames]
    features = {
        "rgb": np.array([describe(resize_rgb(crop.rgb)) for crop in crops]),
        "depth": np.array([describe(encode_depth(crop.depth, "raw")) for crop in crops]),
    }
    features["both"] = np.concatenate([features["rgb"], features["depth"]], axis=1)
    accuracy = {}
    for name, rows in features.items():
        scores = []
        for k in range(3):
            parts = split_frames(index, trials, k)
            train, test = ([place[frame.id] for frame in part] for part in (parts.train, parts.test))
            model = ExtraTreesClassifier(100, random_state=0).fit(rows[train], labels[train])
            scores.append(np.mean(model.predict(rows[test]) == labels[test]))
        accuracy[name] = np.mean(scores)
    assert 0.4 < accuracy["rgb"] < 0.9
    assert 0.4 < accuracy["depth"] < 0.9
    assert accuracy["both"] > max(accuracy["rgb"], accuracy["depth"]) + 0.05
