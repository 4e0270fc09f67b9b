"""Pictures in folders: whatever the folders are called, what is found is what was written."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.runtime.errors import DataError, UsageError
from pipeline.sources.folders import camera_of, read_folder
from pipeline.sources.parts import divide
from pipeline.sources.reading import read_source
from pipeline.sources.survey import survey
from tests.support.own_pictures import colour, depth, save, write_pictures
from tests.support.rgbd_frames import write_frames

COLOUR_NAMES = ["rgb", "RGB", "color", "Colour", "image", "images", "rgb_image", "color-images"]
DEPTH_NAMES = ["depth", "Depth", "aligned_depth_to_color", "depth_image", "depth_raw", "aligned_depth"]
LABELS = ["cup", "bell pepper", "Müsli Schüssel", "007", "unlabelled", "Unlabeled", "_"]
NO_LABEL = {"unlabelled", "Unlabeled", "_"}

folders = st.lists(
    st.tuples(
        st.sampled_from(["", "table", "day 1/shelf"]),  # above the label's folder
        st.sampled_from(LABELS),
        st.sampled_from(COLOUR_NAMES),
        st.sampled_from(DEPTH_NAMES),
        st.dictionaries(  # stem -> the suffixes of colour and depth
            st.text("ab01_- .ü", min_size=1, max_size=6).filter(lambda stem: stem.strip(" .") == stem),
            st.sampled_from([(".png", ".png"), (".JPG", ".npy"), (".jpeg", None), (None, ".tiff"), (".PNG", ".PNG")]),
            min_size=1,
            max_size=4,
        ),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda entry: entry[:2],
)


@given(folders)
def test_what_is_found_is_what_was_written(layout: list[tuple[str, str, str, str, dict[str, tuple[str, str]]]]) -> None:
    expected = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for above, label, colour_name, depth_name, rows in layout:
            for stem, suffixes in rows.items():
                files = []
                for folder, suffix in zip((colour_name, depth_name), suffixes, strict=True):
                    path = root / above / label / folder / f"{stem}{suffix}"
                    if suffix:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.touch()
                    files.append(path if suffix else None)
                place = f"{above}/{label}".removeprefix("/")
                expected[f"{place}/{stem}"] = (*files, None if label in NO_LABEL else label, place)
        source = read_folder(root, "folder")
        absent = [None] * len(source.ids)
        found = zip(
            source.pictures.get("rgb", absent),
            source.pictures.get("depth", absent),
            source.labels,
            source.groups or (),
            strict=True,
        )
        assert dict(zip(source.ids, found, strict=True)) == expected
        assert list(source.ids) == sorted(expected)
        for camera in source.modalities:
            assert source.has(camera).any()


@pytest.mark.parametrize("name", COLOUR_NAMES)
def test_names_of_colour(name: str) -> None:
    assert camera_of(name) == "rgb"


@pytest.mark.parametrize("name", DEPTH_NAMES)
def test_names_of_depth(name: str) -> None:
    assert camera_of(name) == "depth"


@pytest.mark.parametrize("name", ["cup", "mask", "rgbd", "deep", "colourful", "left_image"])
def test_names_of_neither(name: str) -> None:
    assert camera_of(name) is None


def test_the_cameras_folder_may_stand_above_the_label(tmp_path: Path) -> None:
    for camera, values in (("rgb", colour(1)), ("depth", depth(1))):
        save(tmp_path / camera / "cup" / "1.png", values)
    source = read_source(tmp_path, "folder")
    assert (source.ids, source.labels, source.groups) == (("cup/1",), ("cup",), ("cup",))
    assert source.has("rgb").all()
    assert source.has("depth").all()


def test_pictures_directly_in_the_source_have_no_label(tmp_path: Path) -> None:
    save(tmp_path / "rgb" / "1.png", colour(1))
    assert read_source(tmp_path).labels == (None,)


def test_hidden_files_and_those_of_systems_are_ignored(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    ids = read_source(folder).ids
    save(folder / "cup" / "rgb" / ".0009.png", colour(1))
    save(folder / "__MACOSX" / "cup" / "rgb" / "0009.png", colour(1))
    save(folder / ".cache" / "cup" / "rgb" / "0009.png", colour(1))
    (folder / "cup" / "rgb" / "Thumbs.db").touch()
    (folder / "cup" / "rgb" / "notes.txt").touch()
    source = read_source(folder)
    assert source.ids == ids
    assert not source.notes


def test_links_are_followed_and_those_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    kept = tmp_path / "elsewhere"
    shutil.move(folder / "cup", kept)
    (folder / "cup").symlink_to(kept)
    (folder / "hat" / "again").symlink_to(folder)  # leads back up
    (folder / "hat" / "depth" / "0002.png").unlink()
    (folder / "hat" / "depth" / "0002.png").symlink_to(tmp_path / "nowhere.png")
    source = read_source(folder)
    assert source.left_out == {"hat/0002": "hat/depth/0002.png is a link that leads nowhere"}
    assert len(source.ids) == 11
    assert "cup/0001" in source.ids


def test_a_stem_that_occurs_twice(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    save(folder / "cup" / "rgb" / "0001.jpg", colour(1))
    with pytest.raises(DataError, match=r"rgb/0001\.jpg and cup/rgb/0001\.png are both the colour picture of cup/0001"):
        read_source(folder)
    (folder / "cup" / "rgb" / "0001.jpg").unlink()
    save(folder / "cup" / "color" / "0001.png", colour(1))
    with pytest.raises(DataError, match="both the colour picture of cup/0001"):
        read_source(folder)


def test_pictures_in_no_cameras_folder_are_noted(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    save(folder / "cup" / "mask" / "0001.png", colour(1))
    (note,) = read_source(folder).notes
    assert "1 pictures lie in no folder that names their camera" in note
    assert "cup/mask/0001.png" in note
    with pytest.raises(DataError, match=r"1 pictures, such as 0001\.png, but none in a folder that names its camera"):
        read_source(folder / "cup" / "mask")


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file or folder"):
        read_source(tmp_path / "absent")
    with pytest.raises(DataError, match="there are no pictures in it"):
        read_source(tmp_path)
    (tmp_path / "data.parquet").touch()
    with pytest.raises(DataError, match=r"a \.parquet is of no form that can be read"):
        read_source(tmp_path / "data.parquet")
    (tmp_path / "data.h5").touch()
    with pytest.raises(DataError, match="is an HDF5 file") as caught:
        read_source(tmp_path / "data.h5")
    assert "mmssl train" in str(caught.value.hint)


def test_the_washington_layout_has_its_own_command(tmp_path: Path) -> None:
    write_frames(tmp_path)
    for folder in (tmp_path / "raw", tmp_path / "raw" / "rgbd-dataset"):
        with pytest.raises(DataError, match="Washington") as caught:
            read_source(folder)
        assert "mmssl preprocess rgbd" in str(caught.value.hint)


def test_folders_alone_can_group_pictures_in_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'day' to group by") as caught:
        read_source(write_pictures(tmp_path / "mine"), "day")
    assert caught.value.hint == "--group may be folder"


def test_what_is_no_readable_file_is_listed_with_its_row(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    (folder / "cup" / "rgb" / "0005.png").mkdir()
    (folder / "cup" / "depth" / "0006.pgm").touch()
    (folder / "cup" / "rgb" / "0007.heic").touch()
    (folder / "cup" / "rgb" / ".0008.png").touch()
    (folder / "gone").symlink_to("nowhere")
    source = read_source(folder)
    assert source.left_out == {
        "cup/0005": "cup/rgb/0005.png is a folder, not a file",
        "cup/0006": "cup/depth/0006.pgm is of a format that is not read",
        "cup/0007": "cup/rgb/0007.heic is of a format that is not read",
        "gone": "is a link that leads nowhere",
    }
    assert len(source.ids) == 12


def test_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    os.rename(os.fsencode(folder / "cup" / "rgb" / "0000.png"), os.fsencode(folder / "cup" / "rgb") + b"/caf\xe9.png")
    os.rename(os.fsencode(folder / "hat"), os.fsencode(folder) + b"/b\xe9ret")
    source = read_folder(folder)
    why = "has a name that is not UTF-8; rename it"
    left_out = dict(source.left_out)
    assert left_out.pop("cup/caf?") == f"cup/rgb/caf?.png {why}"
    assert {why in problem for problem in left_out.values()} == {True}
    assert {name.split("/")[0] for name in left_out} == {"b?ret"}
    assert {name.split("/")[0] for name in source.ids} == {"cup", "unlabelled"}


def test_a_folder_that_cannot_be_listed_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "mine")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("hat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = read_folder(folder)
    assert len(source.ids) == 8
    assert source.left_out == {"hat": "cannot be listed: Permission denied"}
    monkeypatch.setattr(os, "scandir", lambda path: refuse(f"{path}/hat"))
    with pytest.raises(DataError, match="mine: cannot be listed: Permission denied"):
        read_folder(folder)


def test_colour_turned_by_exif_data_beside_depth_without_is_said(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine", without_depth=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in range(2):
        Image.fromarray(colour(row)).save(folder / "cup" / "rgb" / f"{row:04d}.png", exif=exif)
    source = read_source(folder)
    notes = survey(source, divide(source, None, 0)).notes
    assert any("differ in size in 2 of 12 rows" in note for note in notes)
    assert any(note.startswith("in 2 of 12 rows EXIF data turn one of colour and depth") for note in notes)
