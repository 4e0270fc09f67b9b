import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.manifests import load
from pipeline.datasets.washington import (
    EVERY,
    VIDEOS,
    Facts,
    Frame,
    deviations,
    find_dataset,
    index_dataset,
    index_names,
    load_facts,
    read_frame,
)
from pipeline.datasets.washington_splits import (
    find_trials,
    labelled_ids,
    read_trials,
    split_frames,
    trials_of,
    write_trials,
)
from pipeline.runtime.errors import DataError, UsageError

KINDS = ("crop.png", "depthcrop.png", "maskcrop.png", "loc.txt")


def names_of(sample, kinds=KINDS):
    place = sample.rsplit("_", 2)[0]
    return [f"{place.rsplit('_', 1)[0]}/{place}/{sample}_{kind}" for kind in kinds]


def official_names(facts):
    """A file list with the manifest's objects and frame counts (10 frames where the count is not known)."""
    for category, numbers in facts.objects.items():
        for number, count in zip(numbers, facts.frames[category], strict=True):
            for k in range(count or 10):
                yield from names_of(f"{category}_{number}_{VIDEOS[k % 3]}_{1 + EVERY * (k // 3)}")


@pytest.fixture(scope="module")
def facts():
    return load_facts()


@pytest.fixture(scope="module")
def official(facts):
    return index_names(official_names(facts))


def write_frame(root, sample="apple_1_1_1", rgb=None, depth=None):
    rgb = np.full((6, 5, 3), 90, np.uint8) if rgb is None else rgb
    depth = np.full((6, 5), 700, np.uint16) if depth is None else depth
    crop, depthcrop, maskcrop, loc = (root / "rgbd-dataset" / name for name in names_of(sample))
    crop.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(crop)
    Image.fromarray(depth).save(depthcrop)
    Image.fromarray(np.eye(6, 5, dtype=bool)).save(maskcrop)
    loc.write_text("268,211\n")
    return crop, depthcrop, maskcrop, loc


# The facts.


def test_the_facts_are_the_data_sets(facts, real_data):
    known = json.loads((real_data / "rgbd" / "instances.json").read_text())
    assert set(facts.objects) == set(known["categories"])
    for category, entry in known["categories"].items():
        assert list(facts.objects[category]) == entry["instance_ids"]
        for number, count in zip(facts.objects[category], facts.frames[category], strict=True):
            told = entry["eval_images"][str(number)]
            assert count == (told if isinstance(told, int) else 0)
    assert facts.totals.frames == known["eval_images_official_total"]


def test_the_trials_are_the_official_files(facts, real_data):
    assert read_trials(real_data / "rgbd" / "testinstance_ids.txt") == facts.trials
    told = json.loads((real_data / "rgbd" / "trials.json").read_text())
    assert facts.trials == [told[str(number)] for number in range(1, 11)]


def test_the_archive_and_the_weights_have_manifests():
    assert load("washington-rgbd").files[0].name == "rgbd-dataset_eval.zip"
    assert load("vgg16").files[0].name.split("-")[1].removesuffix(".pth") == load("vgg16").files[0].sha256[:8]


@pytest.mark.parametrize("wrong", [{"apple": (9,)}, {"apple": (1,), "pear": (1,)}, {}])
def test_facts_that_contradict_themselves_are_refused(wrong):
    totals = {"categories": 1, "objects": 1, "frames": 1}
    Facts(totals=totals, objects={"apple": (1,)}, frames={"apple": (0,)}, left_out={"apple": (1,)})
    with pytest.raises(ValueError, match=r"apple|categories"):
        Facts(totals=totals, objects={"apple": (1,)}, frames={"apple": (0,)}, left_out=wrong)


# The index.


def test_the_official_list_has_51_categories_and_300_objects(official, facts):
    assert len(official.categories) == 51
    assert len(official.objects) == 300
    assert official.categories == tuple(sorted(official.categories))
    assert list(official.frames) == sorted(official.frames)
    assert all(a < b for a, b in pairwise(official.frames))
    assert not official.skipped
    unknown = sum(counts.count(0) for counts in facts.frames.values())
    assert unknown == 68
    assert deviations(official, facts) == [f"{len(official.frames):,} frames in all, not 41,877"]


@pytest.mark.parametrize("split", range(10))
def test_every_official_split_leaves_out_one_object_a_category(official, facts, split):
    parts = split_frames(official, facts.trials, split)
    tested = {(frame.category, frame.object) for frame in parts.test}
    trained = {(frame.category, frame.object) for frame in parts.train}
    assert len(tested) == 51
    assert len({category for category, _ in tested}) == 51
    assert tested.isdisjoint(trained)
    assert tested | trained == set(official.objects)
    assert tested == set(facts.trials[split].items())
    assert len(parts.test) + len(parts.train) == len(official.frames)


def test_every_fifth_frame_of_videos_1_2_and_4(real_data):
    index = index_dataset(real_data / "rgbd")
    first = [frame.id for frame in index.objects["apple", 1] if frame.video == 1 and frame.frame <= 12]
    assert first == ["apple_1_1_1", "apple_1_1_6", "apple_1_1_11"]
    assert len(index.objects["apple", 1]) == 122  # the published count; frames in between are there too
    assert "coffee_mug" in index.categories
    assert not index.skipped
    full = [name for frame in range(1, 13) for video in range(1, 5) for name in names_of(f"apple_1_{video}_{frame}")]
    found = index_names(full)
    assert [frame.id for frame in found.frames] == [f"apple_1_{v}_{f}" for v in (1, 2, 4) for f in (1, 6, 11)]
    assert not found.skipped


@pytest.mark.parametrize("category", ["apple", "bell_pepper", "7_up_can", "a_1_1"])
def test_names_are_read_from_the_right(category):
    frames = index_names(names_of(f"{category}_12_4_171")).frames
    assert frames == (Frame(category, 12, 4, 171, frames[0].folder),)
    assert frames[0].rgb.as_posix() == f"{category}/{category}_12/{category}_12_4_171_crop.png"


def test_frames_sort_by_number_not_by_text():
    names = [name for frame in (101, 11, 1, 6) for name in names_of(f"cup_{frame % 10 + 1}_1_{frame}")]
    names += names_of("cup_10_1_1")
    frames = index_names(reversed(names)).frames
    assert [frame.id for frame in frames] == ["cup_2_1_1", "cup_2_1_11", "cup_2_1_101", "cup_7_1_6", "cup_10_1_1"]


def test_bare_names_will_do():
    bare = [name.rsplit("/", 1)[1] for name in names_of("bell_pepper_1_1_1")]
    assert index_names(bare) == index_names(names_of("bell_pepper_1_1_1"))
    nested = [f"rgbd-dataset/{name}" for name in names_of("bell_pepper_1_1_1")]
    assert index_names(nested).frames[0].folder.as_posix() == "rgbd-dataset/bell_pepper/bell_pepper_1"


def test_what_cannot_be_used_is_listed_and_left_out():
    names = [
        *names_of("cup_1_1_1"),
        *names_of("cup_1_1_6", ["crop.png", "loc.txt"]),
        *names_of("cup_1_1_11", ["depthcrop.png"]),
        *names_of("cup_1_1_12", ["crop.png"]),  # not an evaluation frame: nobody misses its depth
        *names_of("cup_1_2_1", ["crop.png", "depthcrop.png"]),
        "cup/cup_2/cup_1_1_16_crop.png",
        "cup/cup_1/cup_photo.png",
        "cup/cup_1/cup_1_1_1_thumb.png",
        "cup/cup_1/.cup_1_1_1_crop.png",
        "cup/cup_1/README.txt",
    ]
    index = index_names(names)
    assert [frame.id for frame in index.frames] == ["cup_1_1_1", "cup_1_2_1"]
    assert index.frames[0].loc is not None
    assert (index.frames[1].loc, index.frames[1].mask) == (None, None)
    assert [str(skipped) for skipped in index.skipped] == [
        "cup/cup_1/cup_1_1_1_thumb.png: does not read as <category>_<object>_<video>_<frame>_<kind>.png",
        "cup/cup_1/cup_photo.png: does not read as <category>_<object>_<video>_<frame>_<kind>.png",
        "cup/cup_2/cup_1_1_16_crop.png: belongs into cup/cup_1/",
        "cup_1_1_11: no cup_1_1_11_crop.png",
        "cup_1_1_6: no cup_1_1_6_depthcrop.png",
    ]
    with pytest.raises(DataError, match=r"cup_1_1_1_thumb\.png: does not read .* \(4 more like it\)"):
        index_names(names, strict=True)


def test_a_data_set_is_found_under_its_usual_names(tmp_path):
    write_frame(tmp_path)
    dataset = tmp_path / "rgbd-dataset"
    assert find_dataset(tmp_path) == find_dataset(dataset) == dataset
    assert [frame.id for frame in index_dataset(tmp_path).frames] == ["apple_1_1_1"]
    dataset.rename(tmp_path / "rgbd-dataset_eval")
    assert find_dataset(tmp_path) == tmp_path / "rgbd-dataset_eval"


def test_a_missing_data_set_is_named_with_the_command_that_gets_it(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such folder") as missing:
        index_dataset(tmp_path / "nowhere")
    assert "mmssl data fetch washington-rgbd" in missing.value.hint
    with pytest.raises(DataError, match="no RGB-D data set in it"):
        index_dataset(tmp_path)
    (tmp_path / "rgbd-dataset" / "apple" / "apple_1").mkdir(parents=True)
    with pytest.raises(DataError, match="not one frame"):
        index_dataset(tmp_path)


def test_deviations_name_every_difference(facts):
    names = [name for name in official_names(facts) if not name.startswith(("pear/", "comb/comb_5/"))]
    names += names_of("comb_4_1_1") + names_of("kettle_1_1_1")
    names = [name for name in names if "apple_1_1_6_" not in name]
    found = deviations(index_names(names), facts)
    assert found[:5] == [
        "category pear is missing",
        "category kettle is not one of the data set's",
        "object apple_1 has 121 frames, not 122",
        "object comb_4 is not one of the data set's",
        "object comb_5 is missing",
    ]
    assert found[5] == f"{300 - 6 + 1} objects in all, not 300"
    assert len(found) == 7


# Trials and splits.


def test_trials_are_written_as_they_are_read(tmp_path, facts):
    path = tmp_path / "testinstance_ids.txt"
    path.write_text(write_trials(facts.trials))
    assert read_trials(path) == facts.trials


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no trial"),
        ("apple_1\n", "line 1: 'apple_1' is not one object of a trial"),
        ("****** trial 1 ******\napple\n", "line 2"),
        ("****** trial 1 ******\napple_x\n", "line 2"),
        ("****** trial 1 ******\napple_1\napple_2\n", "line 3"),
        ("****** trial 2 ******\napple_1\n", "trial 2 where 1 should follow"),
    ],
)
def test_a_trials_file_that_is_none_is_refused(tmp_path, text, reason):
    path = tmp_path / "testinstance_ids.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_trials(path)


def test_a_missing_trials_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"testinstance_ids\.txt: cannot be read"):
        read_trials(tmp_path / "testinstance_ids.txt")


def test_the_data_sets_own_trials_come_before_the_official_ones(tmp_path, facts):
    write_frame(tmp_path)
    assert find_trials(tmp_path) is None
    assert trials_of(tmp_path) == facts.trials
    (tmp_path / "testinstance_ids.txt").write_text(write_trials([{"apple": 1}]))
    assert trials_of(tmp_path) == [{"apple": 1}]
    (tmp_path / "rgbd-dataset" / "testinstance_ids.txt").write_text(write_trials([{"apple": 2}]))
    assert trials_of(tmp_path) == [{"apple": 2}]


@pytest.mark.parametrize("split", [-1, 10, 99])
def test_a_split_outside_the_ten_is_refused(official, facts, split):
    with pytest.raises(UsageError, match=rf"there is no split {split}: they are 0\.\.9"):
        split_frames(official, facts.trials, split)


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        ({"cup": 1, "jug": 1, "pan": 1}, "has categories that the data lacks: pan"),
        ({"cup": 1}, "names no left-out object of jug"),
        ({"cup": 3, "jug": 1}, "leaves out objects that the data lacks: cup_3"),
        ({"cup": 1, "jug": 7}, "leaves nothing to train on of jug"),
    ],
)
def test_a_trial_that_does_not_fit_the_data_is_refused(trial, reason):
    samples = ["cup_1_1_1", "cup_2_1_1", "jug_1_1_1" if trial.get("jug") == 1 else "jug_7_1_1"]
    index = index_names(name for sample in samples for name in names_of(sample))
    with pytest.raises(DataError, match=f"trial 1 {reason}"):
        split_frames(index, [trial], 0)


def test_the_labelled_five_per_cent(official, facts):
    drawn = [labelled_ids(split_frames(official, facts.trials, k), seed=3) for k in range(10)]
    for k, ids in enumerate(drawn):
        parts = split_frames(official, facts.trials, k)
        train = [frame.id for frame in parts.train]
        chosen = set(ids)
        assert len(ids) == len(chosen)
        assert abs(len(ids) - 0.05 * len(train)) <= 0.5
        assert list(ids) == [name for name in train if name in chosen]
    assert len(set(drawn)) == 10
    first = split_frames(official, facts.trials, 0)
    assert labelled_ids(first, seed=3) == drawn[0] != labelled_ids(first)
    # The draw is tied to ids, not to positions: the frames' order does not matter.
    shuffled = type(first)(first.number, first.train[::-1], first.test)
    assert sorted(labelled_ids(shuffled, seed=3)) == sorted(drawn[0])


def test_the_labelled_draw_is_uniform():
    index = index_names(name for k in range(40) for name in names_of(f"cup_{1 + k % 2}_1_{1 + 5 * k}"))
    parts = split_frames(index, [{"cup": 1}], 0)
    counts = dict.fromkeys((frame.id for frame in parts.train), 0)
    for seed in range(1000):
        for name in labelled_ids(parts, 0.25, seed=seed):
            counts[name] += 1
    # 20 ids, 5 a draw: 250 each, standard deviation 13.7.
    assert len(counts) == 20
    assert max(abs(count - 250) for count in counts.values()) < 5 * 13.7


@given(st.floats(0.001, 1))
def test_at_least_one_and_at_most_all_are_labelled(fraction):
    index = index_names(name for k in (1, 2) for f in range(30) for name in names_of(f"cup_{k}_1_{1 + 5 * f}"))
    parts = split_frames(index, [{"cup": 2}], 0)
    ids = labelled_ids(parts, fraction)
    assert 1 <= len(ids) <= 30
    assert abs(len(ids) - 30 * fraction) <= max(0.5, 1 - 30 * fraction)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction):
    index = index_names(names_of("cup_1_1_1") + names_of("cup_2_1_1"))
    with pytest.raises(UsageError, match="labelled fraction"):
        labelled_ids(split_frames(index, [{"cup": 1}], 0), fraction)


# Reading.


def only_frame(root):
    (frame,) = index_dataset(root).frames
    return frame


def test_a_frame_comes_back_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    rgb, depth = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), rng.integers(0, 65536, (6, 5), dtype=np.uint16)
    write_frame(tmp_path, rgb=rgb, depth=depth)
    crop = read_frame(only_frame(tmp_path), mask=True)
    np.testing.assert_array_equal(crop.rgb, rgb)
    np.testing.assert_array_equal(crop.depth, depth)
    np.testing.assert_array_equal(crop.mask, np.eye(6, 5, dtype=bool))
    assert crop.depth.dtype == np.uint16
    assert crop.corner == (268, 211)
    assert read_frame(only_frame(tmp_path)).mask is None


def test_real_frames_are_read(real_data):
    index = index_dataset(real_data / "rgbd")
    crop = read_frame(index.objects["apple", 1][0], mask=True)
    assert crop.rgb.shape == (84, 78, 3)
    assert crop.depth.shape == crop.mask.shape == (84, 78)
    assert 680 < np.median(crop.depth[crop.mask & (crop.depth > 0)]) < 760


def test_a_missing_place_is_no_error(tmp_path):
    *_, mask, loc = write_frame(tmp_path)
    mask.unlink()
    loc.unlink()
    crop = read_frame(only_frame(tmp_path), mask=True)
    assert (crop.mask, crop.corner) == (None, None)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_a_truncated_image_is_named(tmp_path, which, keep):
    noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path = write_frame(tmp_path, rgb=noise, depth=noise[..., 0].astype(np.uint16) * 9)[which]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(DataError, match=f"{path.name}: not a readable image"):
        read_frame(only_frame(tmp_path), mask=True)


def test_an_image_that_vanished_is_named(tmp_path):
    _, depth, *_ = write_frame(tmp_path)
    frame = only_frame(tmp_path)
    depth.unlink()
    with pytest.raises(DataError, match=r"apple_1_1_1_depthcrop\.png: the file is missing"):
        read_frame(frame)


@pytest.mark.parametrize("depth", [np.full((6, 5), 70, np.uint8), np.full((6, 5, 3), 70, np.uint8)])
def test_depth_that_is_not_16_bit_is_refused(tmp_path, depth):
    write_frame(tmp_path, depth=depth)
    with pytest.raises(DataError, match=r"depthcrop\.png: depth must be one channel of 16 bits"):
        read_frame(only_frame(tmp_path))


def test_sizes_that_differ_are_refused(tmp_path):
    write_frame(tmp_path, depth=np.full((5, 6), 700, np.uint16))
    with pytest.raises(DataError, match=r"depthcrop\.png: 6 x 5 pixels, but its RGB image has 5 x 6"):
        read_frame(only_frame(tmp_path))


@pytest.mark.parametrize("text", ["", "268", "268;211", "268,211,3", "a,b", "ä,1"])
def test_a_place_that_is_none_is_refused(tmp_path, text):
    *_, loc = write_frame(tmp_path)
    loc.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"apple_1_1_1_loc\.txt: should hold the crop's corner"):
        read_frame(only_frame(tmp_path))
