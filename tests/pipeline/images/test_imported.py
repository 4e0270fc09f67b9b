"""The image store of a person's own pictures: its pixels, its rows, what is left out, and what changes it."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.pictures import WrongKindError
from pipeline.datasets.washington_index import index_dataset
from pipeline.images.building import process_object
from pipeline.images.depth import encode_depth, fill_holes, scale_depth
from pipeline.images.imported import frame_files, import_pictures, picture_rows, preview
from pipeline.images.resize import resize_rgb
from pipeline.images.store import MODALITIES, ImageSettings, ImageStore, verify_object
from pipeline.runtime.errors import DataError, Interrupted, UsageError
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source
from pipeline.sources.survey import survey
from tests.support.own_pictures import colour, depth, save, write_pictures
from tests.support.preprocessing import SMALL
from tests.support.rgbd_frames import contents, python

RUN = """
import sys
from pathlib import Path
from pipeline.images.imported import import_pictures
from pipeline.images.store import ImageSettings
from pipeline.runtime.errors import MmsslError
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source

if __name__ == "__main__":
    source = read_source(Path(sys.argv[1]), "folder")
    try:
        import_pictures(
            source, divide(source, None, 0), "mine", Path(sys.argv[2]), ImageSettings(size=300), workers=1,
            progress=lambda done, total: print("done", done, flush=True),
        )
    except MmsslError as error:
        print(error)
        sys.exit(error.exit_code)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of pictures: cup, hat and unlabelled, four rows each, the first of which has no depth."""
    return write_pictures(tmp_path / "mine")


def imported(folder: Path, group: str | None = None, test: float | None = None, **options: Any) -> ImageStore:
    """`mmssl data import FOLDER --name mine` into a workspace next to it."""
    source = read_source(folder, group)
    settings = options.pop("settings", SMALL)
    labelling = divide(source, test, 0)
    return import_pictures(
        source, labelling, "mine", folder.parent / "workspace", settings, **({"workers": 1} | options)
    )


def test_the_store_holds_what_the_pictures_show(mine: Path) -> None:
    store = imported(mine, test=0.4)
    rows = store.index.rows
    assert rows is not None
    expected = {
        f"{label}/{row:04d}": 100 * k + row for k, label in enumerate(("cup", "hat", "unlabelled")) for row in range(4)
    }
    assert set(store.ids) == set(expected)
    for name, rgb, encoded, has in zip(
        store.ids,
        np.concatenate(list(store.blocks("rgb"))),
        np.concatenate(list(store.blocks("depth"))),
        store.has("depth"),
        strict=True,
    ):
        np.testing.assert_array_equal(rgb, resize_rgb(colour(expected[name]), 40))
        shown = encode_depth(depth(expected[name]), size=40) if has else np.zeros((40, 40, 3))
        np.testing.assert_array_equal(encoded, shown)
        assert has == (not name.endswith("0000"))
    assert store.has("rgb").all()
    assert rows.classes == ("cup", "hat")
    labels = {"cup": 0, "hat": 1, "unlabelled": -1}
    assert rows.labels == tuple(labels[name.split("/")[0]] for name in store.ids)
    assert rows.groups == ("",) * len(rows.labels)
    assert sum(rows.test) == 3
    assert not any(test for test, label in zip(rows.test, rows.labels, strict=True) if label < 0)
    assert str(mine.parent) not in (store.folder / "index.json").read_text()


def test_processes_and_repetition_change_no_byte(mine: Path) -> None:
    one = imported(mine, "folder")
    before = contents(one.folder)
    assert imported(mine, "folder").digest == one.digest
    times = {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    imported(mine, "folder", workers=2)
    assert times == {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    for path in one.folder.iterdir():
        path.unlink()
    imported(mine, "folder", workers=2)
    assert contents(one.folder) == before


def test_new_labels_and_new_pictures_change_only_what_they_concern(mine: Path) -> None:
    first = imported(mine)
    times = {path.name: path.stat().st_mtime_ns for path in first.folder.glob("*.h5")}
    save(mine / "hat" / "rgb" / "0009.png", colour(9))
    (mine / "unlabelled").rename(mine / "bowl")
    second = imported(mine)
    assert second.index.rows is not None
    assert second.index.rows.classes == ("bowl", "cup", "hat")
    assert {path.name for path in second.folder.glob("*.h5")} == {"bowl-0000.h5", "cup-0000.h5", "hat-0000.h5"}
    assert (second.folder / "cup-0000.h5").stat().st_mtime_ns == times["cup-0000.h5"]
    assert "hat/0009" in second.ids


def test_pictures_without_compression_are_noticed_when_they_change(tmp_path: Path) -> None:
    for label in ("cup", "hat"):
        save(tmp_path / "mine" / label / "depth" / "1.npy", depth(1))
    first = imported(tmp_path / "mine")
    assert first.has("rgb").tolist() == [False, False]
    save(tmp_path / "mine" / "cup" / "depth" / "1.npy", depth(2))
    assert imported(tmp_path / "mine").digest != first.digest


def test_files_follow_groups_labels_and_a_limit(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine", ("a/cup", "a/hat", "b/Hüte"), rows=20)
    source = read_source(folder, "folder")
    grouped = frame_files(source, divide(source, None, 0), 148)
    assert [key.split("-")[0] for key in grouped] == ["a_cup", "a_hat", "b_h_te"]
    assert sorted(row for rows in grouped.values() for row in rows) == list(range(60))
    plain = read_source(folder)
    labelled = frame_files(plain, divide(plain, None, 0), 1024)
    assert all(len(rows) <= 5 for rows in labelled.values())
    assert "cup-0003" in labelled
    assert all(key.isascii() for key in labelled)


def test_float_depth_encodes_as_whole_numbers_do() -> None:
    whole = depth(5)
    metres = (whole / 1000).astype(np.float32)
    for encoding in ("jet", "raw"):
        difference = encode_depth(metres, encoding, size=40).astype(int) - encode_depth(whole, encoding, size=40)
        assert np.abs(difference).max() <= (1 if encoding == "raw" else 5)
    np.testing.assert_array_equal(scale_depth(fill_holes(whole.astype(np.float32))), scale_depth(fill_holes(whole)))
    assert scale_depth(np.full((3, 3), 0.5, np.float32)).tolist() == [[0] * 3] * 3


# What cannot be used.


def test_unreadable_pictures_are_listed_and_left_out(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = mine / "cup" / "depth" / "0002.png"
    path.write_bytes(path.read_bytes()[:60])
    findings = survey(read_source(mine), divide(read_source(mine), None, 0))
    assert "1 depth pictures cannot be read; their rows are left out" in " ".join(findings.notes)
    store = imported(mine)
    assert "cup/0002" not in store.ids
    assert len(store.ids) == 11
    assert store.index.skipped["cup/0002"].startswith("cup/depth/0002.png: not a readable picture")
    assert store.index.rows is not None
    assert len(store.index.rows.labels) == len(store.index.rows.test) == 11
    assert store.index.rows.lacking == {"depth": tuple(np.flatnonzero([name.endswith("0000") for name in store.ids]))}
    assert "left out: cup/0002" in caplog.text
    with pytest.raises(DataError, match=r"0002\.png: not a readable picture"):
        imported(mine, strict=True)
    assert imported(mine).digest == store.digest


def test_a_file_may_be_left_without_any_row(mine: Path) -> None:
    save(mine / "odd" / "_" / "rgb" / "1.png", colour(1)).write_bytes(b"nothing")
    for path in (mine / "unlabelled" / "rgb").iterdir():
        path.write_bytes(b"nothing")
    store = imported(mine)
    assert len(store.ids) == 8
    assert len(store.index.skipped) == 5
    assert np.concatenate(list(store.blocks("rgb"))).shape == (8, 40, 40, 3)
    for path in store.folder.glob("*.h5"):
        verify_object(path)
    before = contents(store.folder)
    assert imported(mine).digest == store.digest
    assert contents(store.folder) == before


def test_a_class_of_which_no_picture_can_be_read(mine: Path) -> None:
    for path in (mine / "hat" / "rgb").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no labelled training picture of the class hat can be read: hat/rgb/"):
        imported(mine)
    assert not (mine.parent / "workspace" / "images" / "mine-40" / "index.json").exists()


def test_one_depth_for_viewing_is_left_out_and_most_of_them_are_an_error(mine: Path) -> None:
    def spoil(path: Path) -> None:
        Image.fromarray(depth(3).astype(np.uint8)).save(path)

    spoil(mine / "hat" / "depth" / "0003.png")
    source = read_source(mine)
    (note,) = [note for note in survey(source, divide(source, None, 0)).notes if "cannot be read" in note]
    assert note.startswith("1 depth pictures cannot be read; their rows are left out: ")
    preview(source, mine.parent / "sheet.png")
    assert imported(mine).index.skipped == {
        "hat/0003": "hat/depth/0003.png: has 8 bits per pixel, too few for depth: the usual cause is a picture made "
        "for viewing"
    }
    for path in mine.glob("*/depth/*2.png"):
        spoil(path)
    for path in mine.glob("*/depth/*1.png"):
        spoil(path)
    with pytest.raises(WrongKindError, match=r"cup/depth/0001\.png: has 8 bits per pixel") as caught:
        survey(source, divide(source, None, 0))
    assert caught.value.hint


def test_normals_need_more_than_pictures(mine: Path) -> None:
    with pytest.raises(UsageError, match="normals needs the camera's focal length"):
        imported(mine, settings=ImageSettings(depth_encoding="normals"))


def test_a_store_of_another_source_is_not_replaced(mine: Path) -> None:
    store = imported(mine)
    other = mine.rename(mine.parent / "other")
    with pytest.raises(DataError, match=r"holds the pictures of mine, not of .*/other"):
        imported(other)
    mine.mkdir()
    for k, kind in enumerate(("cup", "hat")):
        (other / kind).rename(mine / f"new {k}")
    with pytest.raises(DataError, match=r"holds the pictures of another mine, not of .*/mine"):
        imported(mine)
    for k, kind in enumerate(("cup", "hat")):
        (mine / f"new {k}").rename(other / kind)
    (store.folder / "index.json").write_text("{}")
    assert imported(other).index.source == {"imported": "other"}


def test_asked_to_stop_it_keeps_what_is_done(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine", [f"c{k}" for k in range(8)], rows=17, without_depth=0)
    process = python(RUN, folder, tmp_path)
    assert process.stdout is not None
    while process.stdout.readline() != "done 2\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code, output
    store = tmp_path / "images" / "mine-300"
    assert not (store / "index.json").exists()
    assert all(verify_object(path) for path in store.iterdir())
    process = python(RUN, folder, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "done 1\n" not in output
    assert len(ImageStore.open(store).ids) == 136


# What is said before.


def test_the_survey_measures_pictures(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    save(mine / "cup" / "depth" / "0001.png", np.full((30, 40), 5, np.uint16))
    source = read_source(mine, "folder")
    findings = survey(source, divide(source, None, 0))
    assert (findings.rows, findings.complete, findings.groups) == (12, 9, 3)
    rgb, depths = findings.modalities
    assert (rgb.name, rgb.lacking, rgb.contents) == ("rgb", 0, "12 pictures: 32 x 24")
    assert (depths.name, depths.lacking) == ("depth", 3)
    assert depths.contents.startswith("9 pictures: 2 sizes, 32 x 24 to 40 x 30, whole numbers, 5 .. 1199, ")
    assert [(row.name, row.train, row.test) for row in findings.classes] == [("cup", 4, 0), ("hat", 4, 0)]
    assert findings.unlabelled == (4, 0)
    assert any("colour and depth differ in size in 1 of 9 rows" in note for note in findings.notes)


def test_depth_that_may_have_been_spoilt_is_noted(tmp_path: Path) -> None:
    for label in ("cup", "hat"):
        save(tmp_path / "mine" / label / "depth" / "1.png", (depth(1) // 8).astype(np.uint16))
        save(tmp_path / "mine" / label / "depth" / "2.png", np.zeros((9, 9), np.uint16))
    source = read_source(tmp_path / "mine")
    notes = " ".join(survey(source, divide(source, None, 0)).notes)
    assert "are these 8-bit values in a 16-bit file?" in notes
    assert "2 depth pictures hold nothing but holes" in notes


def test_the_preview_shows_rows_that_lack_a_camera(mine: Path, tmp_path: Path) -> None:
    (mine / "hat" / "rgb" / "0001.png").write_bytes(b"nothing")
    preview(read_source(mine), tmp_path / "sheets" / "sheet.png")
    with Image.open(tmp_path / "sheets" / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert (pixels == [232, 232, 228]).all(-1).sum() > 3 * 3 * 140 * 140
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000


def test_the_same_files_give_the_same_images_in_any_layout(undisturbed: Path, tmp_path: Path) -> None:
    frames = index_dataset(undisturbed / "raw" / "rgbd-dataset").frames
    for frame in frames:
        for camera, path in (("rgb", frame.rgb), ("depth", frame.depth)):
            place = tmp_path / "mine" / frame.category / camera / f"{frame.id}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    store, washington = imported(tmp_path / "mine"), ImageStore.open(undisturbed / "images" / "rgbd-40")
    order = [washington.ids.index(name.rpartition("/")[2]) for name in store.ids]
    for camera in MODALITIES:
        expected = np.concatenate(list(washington.blocks(camera)))[order]
        np.testing.assert_array_equal(np.concatenate(list(store.blocks(camera))), expected)


def test_frames_of_any_source_make_the_same_images(mine: Path) -> None:
    rows = picture_rows(read_source(mine))
    whole = process_object("cup", rows[:4], SMALL, True)
    alone = process_object("cup", rows[2:3], SMALL, True)
    np.testing.assert_array_equal(whole.depth[2], alone.depth[0])
    assert whole.ids == ("cup/0000", "cup/0001", "cup/0002", "cup/0003")
    assert not whole.depth[0].any()
    assert json.dumps(dict(whole.skipped)) == "{}"
