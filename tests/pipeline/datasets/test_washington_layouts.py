"""Washington frames in folders as people have them: names, layouts, formats, and what is there instead of frames."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.locations import raw_folder
from pipeline.datasets.washington import read_frame
from pipeline.datasets.washington_index import find_dataset, index_dataset, index_names
from pipeline.datasets.washington_splits import misfit, object_trials
from pipeline.runtime.errors import DataError
from tests.support.washington import names_of, write_frame

TWO = ("crop.png", "depthcrop.png")


def ids(names: list[str], **options: object) -> list[str]:
    return [frame.id for frame in index_names(names, **options).frames]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        ["cup/cup_1/cup_1_1_0001_crop.png", "cup/cup_1/cup_1_1_0001_depthcrop.png"],
        ["cup/cup_01/cup_01_01_000001_crop.PNG", "cup/cup_01/cup_01_01_000001_depthcrop.Png"],
        ["cup/cup_1/cup_1_1_1_crop.jpg", "cup/cup_1/cup_1_1_1_depthcrop.png"],
        ["cup/cup_1/cup_1_1_1_CROP.JPEG", "cup/cup_1/cup_1_1_1_DEPTHCROP.TIFF"],
        ["cup_1/cup_1_1_1_crop.bmp", "cup_1/cup_1_1_1_depthcrop.npy"],
        ["cup_1_1_1_crop.png", "cup_1_1_1_depthcrop.png"],
        ["rgb/cup_1_1_1_crop.png", "depth/cup_1_1_1_depthcrop.png"],
        ["cup_1/rgbd-dataset/cup/cup_1/cup_1_1_1_crop.png", "cup_1/rgbd-dataset/cup/cup_1/cup_1_1_1_depthcrop.png"],
    ],
)
def test_a_frame_is_known_by_its_files_names(names: list[str]) -> None:
    (frame,) = index_names(names, Path("data")).frames
    assert frame.id == "cup_1_1_1"
    assert [path.as_posix() for path in frame.files] == [f"data/{name}" for name in names]
    assert not index_names(names).skipped


def test_a_second_file_of_the_same_image_is_listed() -> None:
    names = [
        *names_of("cup_1_1_1", TWO), "cup/cup_1/cup_1_1_1_crop.jpg", "cup_1/cup_1_1_01_depthcrop.png",
        "cup/cup_1/cup_1_1_1_depthcrop.txt",
    ]  # fmt: skip
    index = index_names(reversed(names))
    assert [path.name for path in index.frames[0].files] == ["cup_1_1_1_crop.png", "cup_1_1_1_depthcrop.png"]
    assert [str(skipped) for skipped in index.skipped] == [
        "cup/cup_1/cup_1_1_1_crop.jpg: is the same image of the same frame as cup/cup_1/cup_1_1_1_crop.png, which is "
        "taken",
        "cup_1/cup_1_1_01_depthcrop.png: is the same image of the same frame as cup/cup_1/cup_1_1_1_depthcrop.png, "
        "which is taken",
    ]


def test_formats_that_are_not_read_are_named() -> None:
    index = index_names([*names_of("cup_1_1_6", ["depthcrop.png"]), "cup/cup_1/cup_1_1_6_crop.gif"])
    assert [str(skipped) for skipped in index.skipped] == [
        "cup_1_1_6: cup_1_1_6_crop.gif is of a format that is not read"
    ]


def test_frames_outside_the_evaluation_set_are_counted_and_may_be_taken() -> None:
    names = [name for video in (1, 3) for frame in (0, 1, 5) for name in names_of(f"cup_1_{video}_{frame}", TWO)]
    index = index_names(names)
    assert [frame.id for frame in index.frames] == ["cup_1_1_1"]
    assert index.not_taken == ("cup_1_1_0", "cup_1_1_5", "cup_1_3_0", "cup_1_3_1", "cup_1_3_5")
    assert ids(names, taken="all") == sorted(["cup_1_1_1", *index.not_taken])


def test_none_in_the_evaluation_set_is_said_with_what_takes_them(tmp_path: Path) -> None:
    write_frame(tmp_path, "cup_1_1_0")
    with pytest.raises(
        DataError, match=r"not one of its 1 frames .*every fifth frame.* the first frame here"
    ) as caught:
        index_dataset(tmp_path)
    assert "--frames all" in str(caught.value.hint)
    assert len(index_dataset(tmp_path, taken="all").frames) == 1


@pytest.mark.parametrize("flat", [lambda path: path.parent.parent, lambda path: path.parent.parent.parent])
def test_folders_of_categories_and_objects_may_be_missing(tmp_path: Path, flat: Callable[[Path], Path]) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 5, 3), np.uint8)
    for path in write_frame(tmp_path, rgb=rgb):
        place = flat(path) / (path.parent.name if flat(path).name == "apple" else "") / path.name
        target = tmp_path / "rgbd-dataset" / place.relative_to(flat(path))
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for folder in (tmp_path / "rgbd-dataset" / "apple" / "apple_1", tmp_path / "rgbd-dataset" / "apple"):
        folder.rmdir()
    assert find_dataset(tmp_path) == tmp_path / "rgbd-dataset"
    (frame,) = index_dataset(tmp_path).frames
    np.testing.assert_array_equal(read_frame(frame).rgb, rgb)


def test_links_folders_and_hidden_files_stop_nothing(tmp_path: Path) -> None:
    place = write_frame(tmp_path)[0].parent
    for sample in ("apple_1_1_6", "apple_1_1_11", "apple_1_1_16"):
        write_frame(tmp_path, sample)
    for name, target in (("apple_1_1_6_crop.png", "../.git/annex/x"), ("apple_1_1_16_loc.txt", "nowhere")):
        (place / name).unlink()
        (place / name).symlink_to(target)
    (place / "apple_1_1_11_depthcrop.png").unlink()
    (place / "apple_1_1_11_depthcrop.png").mkdir()
    for name in (".DS_Store", "._apple_1_1_1_crop.png", "Thumbs.db", "desktop.ini"):
        (place / name).touch()
    (place / "up").symlink_to(place.parent)
    (place.parent / "gone").symlink_to("nowhere")
    index = index_dataset(tmp_path)
    assert [(frame.id, frame.has_loc) for frame in index.frames] == [("apple_1_1_1", True), ("apple_1_1_16", False)]
    assert [str(skipped) for skipped in index.skipped] == [
        "apple/gone: is a link that leads nowhere",
        "apple_1_1_11: apple_1_1_11_depthcrop.png is a folder, not a file",
        "apple_1_1_6: apple_1_1_6_crop.png is a link that leads nowhere",
    ]


def test_archives_in_the_place_of_frames_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw" / "rgbd-dataset"
    folder.mkdir(parents=True)
    for name in ("apple_1.tar", "apple_2.tar"):
        (folder / name).touch()
    with pytest.raises(DataError, match=r"holds apple_1\.tar and 1 more archives, but no frames") as caught:
        raw_folder("rgbd", tmp_path)
    assert "tar -xf" in str(caught.value.hint)
    write_frame(tmp_path / "raw")  # of apple_1
    assert [str(skipped) for skipped in index_dataset(folder).skipped] == [
        "apple_2.tar: is an archive that is not unpacked"
    ]
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "shared"))
    (tmp_path / "shared" / "rgbd").mkdir(parents=True)
    (tmp_path / "shared" / "rgbd" / "rgbd-dataset_eval.tar.gz").touch()
    with pytest.raises(DataError, match=r"not unpacked: .*rgbd-dataset_eval\.tar\.gz") as caught:
        raw_folder("rgbd", tmp_path / "empty")
    assert "mmssl data fetch washington-rgbd" in str(caught.value.hint)


@pytest.mark.parametrize("orientation", [3, 6])
def test_colour_turned_by_its_exif_data(tmp_path: Path, orientation: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    crop, *_ = write_frame(tmp_path, rgb=rgb)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(crop, exif=exif)
    (frame,) = index_dataset(tmp_path).frames
    read = read_frame(frame, corner=False)
    np.testing.assert_array_equal(read.rgb, np.rot90(rgb, {3: 2, 6: 3}[orientation]))
    assert read.depth.shape == (6, 5)
    with pytest.raises(DataError, match=r"turned by its EXIF data, so that apple_1_1_1_loc\.txt is not its corner"):
        read_frame(frame, corner=True)


def test_trials_made_from_what_is_there() -> None:
    objects = [("cup", 4), ("cup", 1), ("mug", 2), ("mug", 3), ("mug", 7)]
    trials = object_trials(objects)
    assert trials == [{"cup": 1, "mug": 2}, {"cup": 4, "mug": 3}, {"cup": 1, "mug": 7}]
    assert all(misfit(objects, trial) is None for trial in trials)
    with pytest.raises(DataError, match="there is only one of cup"):
        object_trials(objects[1:])
    assert misfit(objects, {"cup": 1, "mug": 3, "pan": 1}) is None  # a category that the data lacks plays no part
    assert misfit(objects, {"cup": 2, "mug": 3}) == "leaves out objects that the data lacks: cup_2"
