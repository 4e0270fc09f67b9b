"""The image store: what it holds, what is left out and listed, what is made again, and disks that refuse."""

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from commands.settings_from_options import settings_of
from pipeline.datasets.washington import read_frame
from pipeline.datasets.washington_index import index_dataset
from pipeline.images import preprocess as preprocessing
from pipeline.images.building import process_object
from pipeline.images.depth import encode_depth
from pipeline.images.resize import resize_rgb
from pipeline.images.store import ImageSettings, ImageStore, verify_object
from pipeline.runtime.errors import DataError, StorageError, UsageError
from tests.support.preprocessing import SMALL, preprocess
from tests.support.rgbd_frames import OBJECTS, contents, write_frames


def test_the_store_holds_every_frames_images(undisturbed: Path) -> None:
    store = ImageStore.open(undisturbed / "images" / "rgbd-40")
    frames = index_dataset(undisturbed / "raw" / "rgbd-dataset").frames
    assert store.ids == tuple(frame.id for frame in frames)
    assert len(store.ids) == sum(OBJECTS.values())
    crops = [read_frame(frame) for frame in frames]
    np.testing.assert_array_equal(
        np.concatenate(list(store.blocks("rgb"))), [resize_rgb(crop.rgb, 40) for crop in crops]
    )
    np.testing.assert_array_equal(
        np.concatenate(list(store.blocks("depth"))), [encode_depth(crop.depth, size=40) for crop in crops]
    )
    chosen = ["hat_3_2_1", "cup_1_1_1"]
    rows = sorted(store.ids.index(sample) for sample in chosen)
    np.testing.assert_array_equal(store.images("depth", chosen), np.concatenate(list(store.blocks("depth")))[rows])
    assert len(store.index.trials) == 10
    assert store.index.trials[1] == {"bell_pepper": 2, "cup": 4, "hat": 3}


def test_an_object_whole_equals_its_frames_one_by_one(undisturbed: Path) -> None:
    frames = index_dataset(undisturbed / "raw" / "rgbd-dataset").objects["hat", 3]
    whole = process_object("hat_3", frames, SMALL, False)
    for k, frame in enumerate(frames):
        alone = process_object("hat_3", [frame], SMALL, False)
        np.testing.assert_array_equal(alone.rgb[0], whole.rgb[k])
        np.testing.assert_array_equal(alone.depth[0], whole.depth[k])


def test_other_settings_have_a_store_of_their_own(root: Path) -> None:
    preprocess(root)
    preprocess(root, ImageSettings(size=40, depth_encoding="normals"))
    preprocess(root, ImageSettings(size=36, depth_encoding="raw"))
    assert {path.name for path in (root / "images").iterdir()} == {"rgbd-40", "rgbd-normals-40", "rgbd-raw-36"}
    stores = [ImageStore.open(path) for path in (root / "images").iterdir()]
    assert len({store.digest for store in stores}) == 3
    assert ImageSettings().suffix == ""


def test_what_exists_is_left_and_what_is_damaged_is_made_again(
    root: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preprocess(root)
    folder = root / "images" / "rgbd-40"
    before = contents(folder)
    assert before == contents(undisturbed / "images" / "rgbd-40")
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with h5py.File(folder / "cup_4.h5", "r") as file:
        offset = file["rgb"].id.get_chunk_info(0).byte_offset
    content = bytearray((folder / "cup_4.h5").read_bytes())
    content[offset + 5] ^= 1
    (folder / "cup_4.h5").write_bytes(content)
    (folder / "hat_2.h5").write_bytes(before["hat_2.h5"][:1000])
    caplog.set_level(logging.WARNING)
    preprocess(root)
    assert contents(folder) == before
    again = [record.message for record in caplog.records if "rebuilding it" in record.message]
    assert len(again) == 2
    assert "cup_4.h5" in again[0]
    assert "hat_2.h5" in again[1]
    untouched = {"cup_1.h5", "hat_3.h5", "bell_pepper_1.h5", "bell_pepper_2.h5"}
    assert untouched == {n for n in times if (folder / n).stat().st_mtime_ns == times[n] and n.endswith("h5")}


def test_a_raw_frame_that_changed_is_noticed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = preprocess(root)
    frame = index_dataset(root / "raw").objects["cup", 1][0]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(frame.rgb)
    Image.fromarray(np.full((9, 9), 700, np.uint16)).save(frame.depth)
    again = preprocess(root)
    assert "raw frames have changed" in caplog.text
    assert again.digest != store.digest
    assert (again.images("rgb", [frame.id]) == 0).all()


def test_a_store_that_is_not_complete_is_refused(root: Path) -> None:
    preprocess(root)
    folder = root / "images" / "rgbd-40"
    (folder / "hat_2.h5").write_bytes((folder / "cup_1.h5").read_bytes())
    with pytest.raises(DataError, match=r"hat_2\.h5: is not the file that index\.json names"):
        list(ImageStore.open(folder).blocks("rgb"))
    (folder / "index.json").unlink()
    with pytest.raises(DataError, match="is not complete"):
        ImageStore.open(folder)
    with pytest.raises(DataError, match="does not exist"):
        ImageStore.open(root / "images" / "other")
    (folder / "index.json").write_text('{"dataset": 3}')
    with pytest.raises(DataError, match="is not the index of an image store"):
        ImageStore.open(folder)


# Frames that will not do.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_a_truncated_png_is_listed_and_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    truncate(index_dataset(root / "raw").objects["cup", 4][1].depth)
    store = preprocess(root)
    sample = "cup_4_1_6"
    assert sample not in store.ids
    assert len(store.ids) == sum(OBJECTS.values()) - 1
    assert list(store.index.skipped) == [sample]
    assert "cup_4_1_6_depthcrop.png: not a readable picture" in store.index.skipped[sample]
    assert str(root) not in (store.folder / "index.json").read_text()
    assert f"left out: {sample}" in caplog.text
    assert preprocess(root).digest == store.digest
    with pytest.raises(DataError, match="cup_4_1_6"):
        preprocess(root, strict=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda shape: np.zeros(shape, np.uint8), "depth must be one channel of 16 bits"),
        (lambda shape: np.zeros((*shape, 3), np.uint8), "depth must be one channel of 16 bits"),
        (lambda shape: np.full((shape[0] + 1, shape[1]), 700, np.uint16), "but its RGB image has"),
    ],
)
def test_depth_of_8_bits_and_sizes_that_differ_are_listed_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[tuple[int, ...]], NDArray[Any]], words: str
) -> None:
    frame = index_dataset(root / "raw").objects["cup", 4][2]
    Image.fromarray(spoil(read_frame(frame).depth.shape)).save(frame.depth)
    store = preprocess(root)
    assert frame.id not in store.ids
    assert len(store.ids) == sum(OBJECTS.values()) - 1
    assert words in store.index.skipped[frame.id]
    assert f"left out: {frame.id}" in caplog.text
    with pytest.raises(DataError, match=rf"{frame.id}.*{words}"):
        preprocess(root, strict=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_makes_an_unreadable_frame_an_error(root: Path, workers: int) -> None:
    truncate(index_dataset(root / "raw").objects["cup", 4][1].rgb)
    with pytest.raises(DataError, match=r"cup_4_1_6_crop\.png: not a readable picture") as caught:
        preprocess(root, strict=True, workers=workers)
    assert caught.value.hint
    assert not (root / "images" / "rgbd-40" / "index.json").exists()


def test_an_object_without_a_readable_frame_is_left_out_and_without_any_there_is_no_store(root: Path) -> None:
    objects = index_dataset(root / "raw").objects
    for frame in objects["hat", 2]:
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(frame.depth)  # 8 bits
    store = preprocess(root)
    assert "hat_2" not in store.index.objects
    assert len(store.ids) == sum(OBJECTS.values()) - OBJECTS["hat_2"]
    assert set(store.index.skipped) == {frame.id for frame in objects["hat", 2]}
    for frames in objects.values():
        for frame in frames:
            truncate(frame.rgb)
    with pytest.raises(DataError, match=r"not one frame can be read: bell_pepper_1_1_1: .*not a readable picture"):
        preprocess(root)


def test_depth_without_shape_is_told_and_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = index_dataset(root / "raw").objects["cup", 1][0]
    Image.fromarray(np.zeros(read_frame(frame).depth.shape, np.uint16)).save(frame.depth)
    store = preprocess(root)
    assert store.index.flawed == {frame.id: "every depth value is missing"}
    assert frame.id in store.ids
    assert f"no shape in its depth: {frame.id}" in caplog.text


def test_normals_need_the_crops_place(root: Path) -> None:
    (index_dataset(root / "raw").objects["cup", 1][0].folder / "cup_1_1_1_loc.txt").unlink()
    normals = ImageSettings(size=40, depth_encoding="normals")
    with pytest.raises(DataError, match=r"cup_1_1_1_loc\.txt is missing"):
        preprocess(root, normals, strict=True)
    assert preprocess(root, normals).index.skipped == {"cup_1_1_1": "has no loc.txt, which surface normals need"}
    for loc in root.rglob("*_loc.txt"):
        loc.unlink()
    with pytest.raises(DataError, match=r"21 frames have none"):
        preprocess(root, normals)


def test_missing_data_and_impossible_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no data set rgbd: looked in") as caught:
        preprocess(tmp_path)
    assert "mmssl data fetch" in str(caught.value.hint)
    with pytest.raises(DataError) as caught:
        preprocessing.preprocess("rgbd-sample", tmp_path, SMALL)
    assert "mmssl data sample" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no RGB-D data set 'kitti'"):
        preprocessing.preprocess("kitti", tmp_path, SMALL)
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "elsewhere"))
    write_frames(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "raw").rename(tmp_path / "elsewhere" / "rgbd")
    assert len(preprocess(tmp_path).ids) == sum(OBJECTS.values())
    with pytest.raises(UsageError, match="--workers"):
        preprocess(tmp_path / "x", workers=0)
    for values, words in (({"size": 20}, "size 20: .*32"), ({"depth_encoding": "hha"}, "depth-encoding hha: .*'jet'")):
        with pytest.raises(UsageError, match=words):
            settings_of(ImageSettings, **values)


def test_the_preview_shows_every_object(undisturbed: Path, tmp_path: Path) -> None:
    preprocessing.preview("rgbd", undisturbed, SMALL, tmp_path / "deep" / "sheet.png")
    with Image.open(tmp_path / "deep" / "sheet.png") as sheet:
        assert sheet.height > len(OBJECTS) * 148
        assert len(sheet.getcolors(2**20) or []) > 1000


# The disk.


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path))
    write_frames(tmp_path)
    (tmp_path / "raw").rename(tmp_path / "rgbd")
    with pytest.raises(StorageError, match="the disk is full"):
        preprocess(small_disk, ImageSettings(size=200))
    folder = small_disk / "images" / "rgbd-200"
    assert all(verify_object(path) for path in folder.iterdir())  # whole files alone, under their final names
    assert not (folder / "index.json").exists()


def test_a_read_only_disk_is_one_sentence_and_a_complete_store_on_it_is_used(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path))
    write_frames(tmp_path)
    (tmp_path / "raw").rename(tmp_path / "rgbd")
    smallest = ImageSettings(size=32)
    digest = preprocess(small_disk, smallest).digest
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert preprocess(small_disk, smallest).digest == digest
    with pytest.raises(StorageError, match=r"cannot write .*rgbd-40.*[Rr]ead-only"):
        preprocess(small_disk)
    assert {path.name for path in (small_disk / "images").iterdir()} == {"rgbd-32"}


def test_a_place_that_cannot_be_written_is_one_sentence(root: Path) -> None:
    (root / "images").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write .*images"):
        preprocess(root)


# The real frames.


def test_the_real_frames_go_through(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMSSL_DATA", str(real_data))
    store = preprocess(tmp_path, ImageSettings())
    assert len(store.index.objects) == 11
    # Of apple_1's video 1, frames 1..12 are there: the evaluation set takes three of them.
    first = {f"apple_1_1_{frame}" for frame in range(1, 13)}
    assert first & set(store.ids) == {"apple_1_1_1", "apple_1_1_6", "apple_1_1_11"}
    assert not store.index.skipped
    assert "not the complete data set" in caplog.text
    for modality in ("rgb", "depth"):
        images = np.concatenate(list(store.blocks(modality)))
        assert images.shape == (len(store.ids), 148, 148, 3)
        assert (images.reshape(len(images), -1).std(axis=1) > 5).all()
