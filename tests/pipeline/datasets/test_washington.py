"""Frames of Washington RGB-D: which there are, what deviates, and reading them."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.manifests import load
from pipeline.datasets.washington import Facts, Frame, read_frame
from pipeline.datasets.washington_index import Index, deviations, find_dataset, index_dataset, index_names
from pipeline.datasets.washington_splits import (
    read_trials,
    split_frames,
)
from pipeline.runtime.errors import DataError
from tests.support.washington import Pixels, names_of, official_names, write_frame

# The facts.


def test_the_facts_are_the_data_sets(facts: Facts, real_data: Path) -> None:
    known = json.loads((real_data / "rgbd" / "instances.json").read_text())
    assert set(facts.objects) == set(known["categories"])
    for category, entry in known["categories"].items():
        assert list(facts.objects[category]) == entry["instance_ids"]
        for number, count in zip(facts.objects[category], facts.frames[category], strict=True):
            images = entry["eval_images"][str(number)]
            assert count == (images if isinstance(images, int) else 0)
    assert facts.totals.frames == known["eval_images_official_total"]


def test_the_trials_are_the_official_files(facts: Facts, real_data: Path) -> None:
    assert read_trials(real_data / "rgbd" / "testinstance_ids.txt") == facts.trials
    trials = json.loads((real_data / "rgbd" / "trials.json").read_text())
    assert facts.trials == [trials[str(number)] for number in range(1, 11)]


def test_the_archive_and_the_weights_have_manifests() -> None:
    assert load("washington-rgbd").files[0].name == "rgbd-dataset_eval.zip"
    assert load("vgg16").files[0].name.split("-")[1].removesuffix(".pth") == load("vgg16").files[0].sha256[:8]


@pytest.mark.parametrize("wrong", [{"apple": (9,)}, {"apple": (1,), "pear": (1,)}, {}])
def test_facts_that_contradict_themselves_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    totals = {"categories": 1, "objects": 1, "frames": 1}
    Facts(totals=totals, objects={"apple": (1,)}, frames={"apple": (0,)}, left_out={"apple": (1,)})
    with pytest.raises(ValueError, match=r"apple|categories"):
        Facts(totals=totals, objects={"apple": (1,)}, frames={"apple": (0,)}, left_out=wrong)


# The index.


def test_the_official_list_has_51_categories_and_300_objects(official: Index, facts: Facts) -> None:
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
def test_every_official_split_leaves_out_one_object_a_category(official: Index, facts: Facts, split: int) -> None:
    parts = split_frames(official, facts.trials, split)
    tested = {(frame.category, frame.object) for frame in parts.test}
    trained = {(frame.category, frame.object) for frame in parts.train}
    assert len(tested) == 51
    assert len({category for category, _ in tested}) == 51
    assert tested.isdisjoint(trained)
    assert tested | trained == set(official.objects)
    assert tested == set(facts.trials[split].items())
    assert len(parts.test) + len(parts.train) == len(official.frames)


def test_every_fifth_frame_of_videos_1_2_and_4(real_data: Path) -> None:
    index = index_dataset(real_data / "rgbd")
    first = [frame.id for frame in index.objects["apple", 1] if frame.video == 1 and frame.frame <= 12]
    assert first == ["apple_1_1_1", "apple_1_1_6", "apple_1_1_11"]
    assert len(index.objects["apple", 1]) == 122  # the published count; frames in between are there too
    assert "coffee_mug" in index.categories
    assert not index.skipped
    full = [name for frame in range(1, 13) for video in range(1, 5) for name in names_of(f"apple_1_{video}_{frame}")]
    indexed = index_names(full)
    assert [frame.id for frame in indexed.frames] == [f"apple_1_{v}_{f}" for v in (1, 2, 4) for f in (1, 6, 11)]
    assert not indexed.skipped


@pytest.mark.parametrize("category", ["apple", "bell_pepper", "7_up_can", "a_1_1"])
def test_names_are_read_from_the_right(category: str) -> None:
    frames = index_names(names_of(f"{category}_12_4_171")).frames
    assert frames == (Frame(category, 12, 4, 171, frames[0].folder),)
    assert frames[0].rgb.as_posix() == f"{category}/{category}_12/{category}_12_4_171_crop.png"


def test_frames_sort_by_number_not_by_text() -> None:
    names = [name for frame in (101, 11, 1, 6) for name in names_of(f"cup_{frame % 10 + 1}_1_{frame}")]
    names += names_of("cup_10_1_1")
    frames = index_names(reversed(names)).frames
    assert [frame.id for frame in frames] == ["cup_2_1_1", "cup_2_1_11", "cup_2_1_101", "cup_7_1_6", "cup_10_1_1"]


def test_bare_names_will_do() -> None:
    bare = [name.rsplit("/", 1)[1] for name in names_of("bell_pepper_1_1_1")]
    (frame,) = index_names(bare).frames
    assert (frame.id, frame.rgb.as_posix()) == ("bell_pepper_1_1_1", "bell_pepper_1_1_1_crop.png")
    nested = [f"rgbd-dataset/{name}" for name in names_of("bell_pepper_1_1_1")]
    assert index_names(nested).frames[0].folder.as_posix() == "rgbd-dataset/bell_pepper/bell_pepper_1"


def test_what_cannot_be_used_is_listed_and_left_out() -> None:
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


def test_a_data_set_is_found_under_its_usual_names(tmp_path: Path) -> None:
    write_frame(tmp_path)
    dataset = tmp_path / "rgbd-dataset"
    assert find_dataset(tmp_path) == find_dataset(dataset) == dataset
    assert [frame.id for frame in index_dataset(tmp_path).frames] == ["apple_1_1_1"]
    dataset.rename(tmp_path / "rgbd-dataset_eval")
    assert find_dataset(tmp_path) == tmp_path / "rgbd-dataset_eval"


def test_a_missing_data_set_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder") as missing:
        index_dataset(tmp_path / "nowhere")
    assert "mmssl data fetch washington-rgbd" in str(missing.value.hint)
    with pytest.raises(DataError, match="no RGB-D data set in it"):
        index_dataset(tmp_path)
    (tmp_path / "rgbd-dataset" / "apple" / "apple_1").mkdir(parents=True)
    with pytest.raises(DataError, match="not one frame"):
        index_dataset(tmp_path)


def test_deviations_name_every_difference(facts: Facts) -> None:
    names = [name for name in official_names(facts) if not name.startswith(("pear/", "comb/comb_5/"))]
    names += names_of("comb_4_1_1") + names_of("kettle_1_1_1")
    names = [name for name in names if "apple_1_1_6_" not in name]
    messages = deviations(index_names(names), facts)
    assert messages[:5] == [
        "category pear is missing",
        "category kettle is not one of the data set's",
        "object apple_1 has 121 frames, not 122",
        "object comb_4 is not one of the data set's",
        "object comb_5 is missing",
    ]
    assert messages[5] == f"{300 - 6 + 1} objects in all, not 300"
    assert len(messages) == 7


# Reading.


def only_frame(root: Path) -> Frame:
    (frame,) = index_dataset(root).frames
    return frame


def test_a_frame_comes_back_as_it_was_written(tmp_path: Path) -> None:
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


def test_real_frames_are_read(real_data: Path) -> None:
    index = index_dataset(real_data / "rgbd")
    crop = read_frame(index.objects["apple", 1][0], mask=True)
    assert crop.rgb.shape == (84, 78, 3)
    assert crop.mask is not None
    assert crop.depth.shape == crop.mask.shape == (84, 78)
    assert 680 < np.median(crop.depth[crop.mask & (crop.depth > 0)]) < 760


def test_a_missing_place_is_no_error(tmp_path: Path) -> None:
    *_, mask, loc = write_frame(tmp_path)
    mask.unlink()
    loc.unlink()
    crop = read_frame(only_frame(tmp_path), mask=True)
    assert (crop.mask, crop.corner) == (None, None)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_a_truncated_image_is_named(tmp_path: Path, which: int, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path = write_frame(tmp_path, rgb=noise, depth=noise[..., 0].astype(np.uint16) * 9)[which]
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content) if keep < 1 else keep)])
    with pytest.raises(DataError, match=f"{path.name}: not a readable picture"):
        read_frame(only_frame(tmp_path), mask=True)


def test_an_image_that_vanished_is_named(tmp_path: Path) -> None:
    _, depth, *_ = write_frame(tmp_path)
    frame = only_frame(tmp_path)
    depth.unlink()
    with pytest.raises(DataError, match=r"apple_1_1_1_depthcrop\.png: the file is missing"):
        read_frame(frame)


@pytest.mark.parametrize("depth", [np.full((6, 5), 70, np.uint8), np.full((6, 5, 3), 70, np.uint8)])
def test_depth_that_is_not_16_bit_is_refused(tmp_path: Path, depth: Pixels) -> None:
    write_frame(tmp_path, depth=depth)
    with pytest.raises(DataError, match=r"depthcrop\.png: depth must be one channel of 16 bits"):
        read_frame(only_frame(tmp_path))


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, depth=np.full((5, 6), 700, np.uint16))
    with pytest.raises(DataError, match=r"depthcrop\.png: 6 x 5 pixels, but its RGB image has 5 x 6"):
        read_frame(only_frame(tmp_path))


@pytest.mark.parametrize("text", ["", "268", "268;211", "268,211,3", "a,b", "ä,1"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    *_, loc = write_frame(tmp_path)
    loc.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"apple_1_1_1_loc\.txt: should hold the crop's corner"):
        read_frame(only_frame(tmp_path))
