import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier

from pipeline.datasets.washington import index_dataset, read_frame
from pipeline.datasets.washington_splits import find_trials, labelled_ids, read_trials, split_frames, trials_of
from pipeline.images.depth import encode_depth, fill_holes, surface_normals
from pipeline.images.resize import resize_rgb
from pipeline.runtime.errors import DataError, StorageError, UsageError
from pipeline.sample.ray_caster import Paint, View, shoot
from pipeline.sample.render import CATEGORIES, Settings, draw_object, draw_view, render, settings_of
from pipeline.sample.solids import box, brim, handle, lathe, union

WHITE = Paint("plain", ((0.8, 0.8, 0.8),), gloss=0.0)


def sphere(radius):
    angles = np.linspace(-np.pi / 2, np.pi / 2, 61)
    return lathe([(max(radius * np.cos(a), 0.0), radius + radius * np.sin(a)) for a in angles])


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Ten categories, three objects each, four views at three heights: 360 frames."""
    root = tmp_path_factory.mktemp("sample")
    render(root, objects_per_category=3, views=4)
    return root


# The solids' distances.


@pytest.mark.parametrize(
    ("solid", "point", "distance"),
    [
        (sphere(40), (0, 0, 40), -39.5),
        (sphere(40), (42, 0, 40), 2),
        (sphere(40), (0, 24, 8), 0),
        (box(60, 40, 100), (32, 0, 50), 2),
        (box(60, 40, 100), (0, 0, 50), -20),
        (box(60, 40, 100), (0, -23, 103), np.hypot(5, 5) - 2),  # from the middle of the rounded edge
        (handle(40, 50, 20, 5, 1.0), (60, 0, 50), -5),
        (handle(40, 50, 20, 5, 1.0), (44, 0, 71), -3.6),
        (brim(50, 60, 50, 10), (100, 0, 13), -2),
    ],
)
def test_distances_are_the_solids(solid, point, distance):
    x, y, z = (np.array([value], np.float32) for value in point)
    assert solid.field(x, y, z)[0] == pytest.approx(distance, abs=0.6)


def test_a_union_is_the_nearer_of_its_parts():
    parts = sphere(30), box(80, 20, 40)
    both = union(*parts)
    points = np.random.default_rng(0).uniform(-60, 90, (3, 200)).astype(np.float32)
    np.testing.assert_array_equal(both.field(*points), np.minimum(*(part.field(*points) for part in parts)))
    assert both.high.tolist() == [40, 30, 60]


def test_solids_lie_within_their_boxes_and_do_not_overstate_distance():
    """Sphere tracing steps over what a field overstates: between two points it may not change by more than the way."""
    settings, rng = Settings(len(CATEGORIES), 2, 1, 0), np.random.default_rng(0)
    for category in range(len(CATEGORIES)):
        solid, _ = draw_object(settings, category, 1)
        inside = rng.uniform(solid.low - 5, solid.high + 5, (4000, 3)).T.astype(np.float32)
        distance = solid.field(*inside)
        out = ((inside < solid.low[:, None] - 1) | (inside > solid.high[:, None] + 1)).any(axis=0)
        assert (distance[out] > 0).all()
        assert (distance < 0).mean() > 0.03
        way = rng.normal(0, 1.5, inside.shape).astype(np.float32)
        change = np.abs(solid.field(*(inside + way)) - distance)
        assert (change <= 1.05 * np.linalg.norm(way, axis=0) + 0.1).all()


# The camera and the sensor.


def test_depth_is_the_distance_along_the_optical_axis():
    view = View(elevation=np.radians(45), turn=0.3, distance=700)
    shot = shoot(sphere(40), WHITE, view, np.random.default_rng(0))
    nearest = shot.depth[shot.mask & (shot.depth > 0)]
    assert np.percentile(nearest, 1) == pytest.approx(660, abs=4)
    # The silhouette is a disc of radius f * r / sqrt(d^2 - r^2) around the frame's middle.
    radius = 570.3 * 40 / np.sqrt(700**2 - 40**2)
    assert shot.mask.sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    rows, columns = np.nonzero(shot.mask)
    assert columns.mean() + shot.corner[0] == pytest.approx(320, abs=1)
    assert rows.mean() + shot.corner[1] == pytest.approx(240, abs=1)


def test_the_table_is_where_the_elevation_says():
    view = View(elevation=np.radians(60), turn=0.0, distance=700, shift=(20, -15))
    shot = shoot(sphere(40), WHITE, view, np.random.default_rng(0))
    normals = surface_normals(shot.depth, (shot.corner[0] - 20, shot.corner[1] + 15))
    table = np.median(normals[-3:].reshape(-1, 3), axis=0)
    np.testing.assert_allclose(table, [0, -np.cos(np.radians(60)), -np.sin(np.radians(60))], atol=0.06)


def test_the_projectors_shadow_lies_to_the_left():
    tall = box(60, 60, 150)
    shot = shoot(tall, WHITE, View(elevation=np.radians(30), turn=0.0), np.random.default_rng(0))
    missing = (shot.depth == 0) & ~shot.mask
    middle = shot.mask.shape[1] // 2
    assert missing[:, :middle].sum() > 5 * missing[:, middle:].sum()


def test_gloss_blinds_the_sensor():
    view = View(elevation=np.radians(45), turn=0.0)
    holes = []
    for gloss in (0.0, 0.7):
        shot = shoot(sphere(40), replace(WHITE, gloss=gloss), view, np.random.default_rng(0))
        holes.append(((shot.depth == 0) & shot.mask).mean())
    assert holes[1] > holes[0] + 0.005


def test_depth_comes_in_the_sensors_steps():
    shot = shoot(box(90, 60, 130), WHITE, View(elevation=np.radians(30), turn=0.6), np.random.default_rng(0))
    values = np.unique(shot.depth[shot.mask & (shot.depth > 0)])
    steps = np.diff(values[values < 760])
    # Eighths of a pixel of disparity at 0.7 m are z^2 / (8 f b) = 1.4 mm.
    assert 1 < len(values) < 120
    assert set(steps) <= {1, 2}
    assert 2 in steps


def test_a_turn_is_a_turn_and_light_is_light():
    mug, paint = draw_object(Settings(10, 2, 1, 0), 0, 1)
    view = View(elevation=np.radians(30), turn=0.0)

    def seen(**change):
        return shoot(mug, paint, replace(view, **change), np.random.default_rng(0))

    def width(shot):
        return np.ptp(np.flatnonzero(shot.mask.any(axis=0)))

    left, right, front = (seen(turn=turn) for turn in (np.pi / 2, -np.pi / 2, 0.0))
    assert width(left) > width(front) + 12  # the handle is seen from the side
    assert abs(width(left) - width(right)) <= 2
    bright, dark = (seen(exposure=exposure) for exposure in (1.0, 0.2))
    np.testing.assert_array_equal(bright.depth, dark.depth)
    assert dark.rgb.mean() < 0.6 * bright.rgb.mean()


# The data set.


def test_the_sample_has_the_official_layout(sample):
    index = index_dataset(sample, strict=True)
    assert len(index.frames) == 10 * 3 * 3 * 4
    assert index.categories == tuple(sorted(category.name for category in CATEGORIES[:10]))
    assert {frame.video for frame in index.frames} == {1, 2, 4}
    assert sorted({frame.frame for frame in index.frames}) == [1, 6, 11, 16]
    assert find_trials(sample) == sample / "rgbd-dataset" / "testinstance_ids.txt"
    assert settings_of(sample / "rgbd-dataset") == {
        "categories": 10, "objects_per_category": 3, "views": 4, "seed": 0, "version": 1,
    }  # fmt: skip
    one = index.frames[0]
    for path, mode in ((one.rgb, "RGB"), (one.depth, "I;16"), (one.mask, "1")):
        with Image.open(path) as image:
            assert image.mode == mode


def test_every_frame_looks_like_the_sensors(sample):
    shapes, missing = [], []
    for frame in index_dataset(sample).frames[::7]:
        crop = read_frame(frame, mask=True)
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


def test_all_ten_splits_work(sample):
    index, trials = index_dataset(sample), read_trials(find_trials(sample))
    assert len(trials) == 10
    for k in range(10):
        parts = split_frames(index, trials, k)
        assert (len(parts.train), len(parts.test)) == (240, 120)
        assert len(labelled_ids(parts)) == 12
    for category in index.categories:
        assert {trial[category] for trial in trials} == {1, 2, 3}


def test_a_seed_fixes_every_byte(tmp_path):
    small = {"categories": 3, "objects_per_category": 2, "views": 1}
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    done = []
    render(first, **small, seed=1, progress=lambda n, of: done.append((n, of)))
    render(again, **small, seed=1)
    render(other, **small, seed=2)
    assert contents(first) == contents(again)
    assert contents(first).keys() == contents(other).keys()
    differing = [name for name, digest in contents(first).items() if contents(other)[name] != digest]
    assert len(differing) > 0.7 * len(contents(first))
    assert done == [(n, 6) for n in range(1, 7)]


def test_a_frame_is_the_same_rendered_alone(sample):
    settings = Settings(10, 3, 4, 0)
    frame = index_dataset(sample).objects["bowl", 2][5]
    place = [category.name for category in CATEGORIES].index("bowl")
    view, rng = draw_view(settings, place, 2, frame.video, (frame.frame - 1) // 5)
    shot, crop = shoot(*draw_object(settings, place, 2), view, rng), read_frame(frame, mask=True)
    np.testing.assert_array_equal(shot.rgb, crop.rgb)
    np.testing.assert_array_equal(shot.depth, crop.depth)
    np.testing.assert_array_equal(shot.mask, crop.mask)
    assert shot.corner == crop.corner


def test_a_sample_that_is_there_is_left_alone(tmp_path):
    small = {"categories": 2, "objects_per_category": 2, "views": 1}
    folder = render(tmp_path, **small)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert render(tmp_path, **small) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(DataError, match="another data set is there"):
        render(tmp_path, **(small | {"seed": 5}))
    (folder / "sample.json").unlink()
    with pytest.raises(DataError, match="another data set is there"):
        render(tmp_path, **small)


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    left = tmp_path / ".rgbd-dataset.partial" / "coffee_mug" / "coffee_mug_1"
    left.mkdir(parents=True)
    (left / "coffee_mug_1_1_1_crop.png").write_bytes(b"half")
    folder = render(tmp_path, categories=2, objects_per_category=2, views=1)
    assert [path.name for path in tmp_path.iterdir()] == ["rgbd-dataset"]
    assert len(index_dataset(folder, strict=True).frames) == 12


def test_a_full_disk_leaves_no_data_set(small_disk):
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
def test_settings_that_mean_nothing_are_refused(tmp_path, wrong, reason):
    with pytest.raises(UsageError, match=reason):
        render(tmp_path, **wrong)
    assert not any(tmp_path.iterdir())


def test_each_camera_alone_falls_short_and_both_together_do_better(sample):
    index, trials = index_dataset(sample), trials_of(sample)
    place = {frame.id: n for n, frame in enumerate(index.frames)}
    labels = np.array([index.categories.index(frame.category) for frame in index.frames])

    def gradients(grey):
        """[8 * 8 * 8] histogram of gradient directions, a coarse stand-in for a network's features."""
        dy, dx = np.gradient(grey.astype(np.float32)[2:-2, 2:-2])
        turn, size = ((np.arctan2(dy, dx) / np.pi + 1) * 4).astype(int) % 8, np.hypot(dx, dy)
        cells = [(size * (turn == k)).reshape(8, 18, 8, 18).sum((1, 3)) for k in range(8)]
        return np.ravel(cells) / (np.linalg.norm(cells) + 1e-6)

    def describe(pixels):
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
