"""`mmssl data import`: from a person's own files to a shard or an image store, and what it says on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.datasets.resolve import shard_paths
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.schema import Modality
from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused
from tests.support.own_pictures import colour, depth, save, write_pictures
from tests.support.rgbd_frames import write_frames

NAN = float("nan")
ROWS = 60


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Three modalities of 60 rows, of which every third lacks `touch` and a half has no label; ten groups."""
    rng = np.random.default_rng(0)
    kind = np.arange(ROWS) % 2
    camera = rng.normal(3 * kind[:, None], 2, (ROWS, 5))
    touch = np.abs(rng.normal(40 * kind[:, None], 9, (ROWS, 3)))
    touch[:, 2] = 700  # constant
    touch[::3] = NAN
    label = np.where(np.arange(ROWS) % 4 < 2, np.array(["cup", "bowl"])[kind], "")
    path = tmp_path / "mine.npz"
    np.savez(
        path, camera=camera, touch=touch, on=rng.random((ROWS, 4)).round(), label=label, group=np.arange(ROWS) // 6
    )
    return path


def test_vectors_become_a_shard_that_training_finds(mmssl: Command, vectors: Path, tmp_path: Path) -> None:
    said = mmssl("data", "import", vectors, "--name", "mine", "--test", 0.2, "--dry-run")
    assert said.code == 0, said.err
    for words in ("60 rows, 40 of them with every modality", "bowl", "10 groups, none of them in both parts", "-5"):
        assert words in said.out
    assert not (tmp_path / "workspace").exists()
    done = mmssl("data", "import", vectors, "--name", "mine", "--test", 0.2)
    assert done.code == 0, done.err
    assert done.out.startswith(said.out)
    path = tmp_path / "workspace" / "shards" / "mine.h5"
    assert done.out.splitlines()[-1] == str(path)
    shard = Shard.open(path)
    shard.verify()
    assert shard.classes == ("bowl", "cup")
    assert shard.modalities == (
        Modality("camera", 5, "gaussian"),
        Modality("touch", 3, "nonnegative"),
        Modality("on", 4, "bernoulli"),
    )
    assert shard_paths("mine", (), tmp_path / "workspace") == [path]
    assert mmssl("train", "ssmvae", "--data", "mine", "--dry-run").code == 0
    with pytest.raises(UsageError, match="mine has no splits"):
        shard_paths("mine", (0,), tmp_path / "workspace")
    content = path.read_bytes()
    again = mmssl("data", "import", vectors, "--name", "mine", "--test", 0.2)
    assert (again.code, again.out, path.read_bytes()) == (0, done.out, content)
    listed = mmssl("data", "list")
    assert "60 rows of camera, touch, on; 30 labelled" in listed.out
    (path.parent / "damaged.h5").write_bytes(b"damaged")
    assert "damaged.h5" in mmssl("data", "list").err
    other = mmssl("data", "import", vectors, "--name", "mine", "--test", 0.3)
    assert other.code == 1
    assert "mine.h5: exists with other settings" in other.err
    assert path.read_bytes() == content


def test_another_list_of_classes_is_another_import(mmssl: Command, vectors: Path) -> None:
    given = ("data", "import", vectors, "--name", "mine", "--test", 0.2)
    assert mmssl(*given).code == 0
    named = mmssl(*given, "--class", "cup", "--class", "bowl", "--class", "hat")
    assert named.code == 1
    assert "exists with other classes" in named.err


def test_a_shard_of_vectors_is_scaled_by_its_training_rows(mmssl: Command, vectors: Path, tmp_path: Path) -> None:
    assert mmssl("data", "import", vectors, "--name", "mine", "--test", 0.2).code == 0
    shard = Shard.open(tmp_path / "workspace" / "shards" / "mine.h5")
    raw = dict(np.load(vectors))
    assert set(shard.scaling) == {"camera", "touch"}
    np.testing.assert_allclose(shard.train.features("camera").mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(shard.train.features("camera").std(0), 1, atol=1e-5)
    has = shard.train.has("touch")
    assert shard.scaling["touch"].mean.tolist() == [0, 0, 0]
    assert shard.scaling["touch"].deviation[2] == 1
    np.testing.assert_allclose(shard.train.features("touch")[has][:, :2].std(0), 1, atol=1e-5)
    for part in (shard.train, shard.test):
        rows = part.ids.astype(int)
        np.testing.assert_array_equal(part.has("touch"), rows % 3 > 0)
        assert not part.features("touch")[~part.has("touch")].any()
        for name in ("camera", "touch"):
            scaling = shard.scaling[name]
            expected = scaling(raw[name].astype(np.float32))[rows]
            np.testing.assert_array_equal(part.features(name)[part.has(name)], expected[part.has(name)])
        np.testing.assert_array_equal(part.features("on"), raw["on"][rows].astype(np.float32))
        labels = [label and shard.classes.index(label) for label in raw["label"][rows].tolist()]
        assert part.labels.tolist() == [-1 if label == "" else label for label in labels]
        assert part.groups is not None
        np.testing.assert_array_equal(part.groups.astype(int), rows // 6)
    assert not set((shard.train.ids.astype(int) // 6).tolist()) & set((shard.test.ids.astype(int) // 6).tolist())
    assert str(tmp_path) not in str(shard.provenance)


def test_distributions_may_be_chosen(mmssl: Command, vectors: Path, tmp_path: Path) -> None:
    done = mmssl(
        "data",
        "import",
        vectors,
        "--name",
        "mine",
        "--distribution",
        "touch=gaussian",
        "--distribution",
        "on=nonnegative",
    )
    assert done.code == 0, done.err
    shard = Shard.open(tmp_path / "workspace" / "shards" / "mine.h5")
    assert [m.distribution for m in shard.modalities] == ["gaussian", "gaussian", "nonnegative"]
    assert shard.test.rows == 0
    assert "on" not in shard.scaling


def test_pictures_become_an_image_store(mmssl: Command, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "my pictures", ("desk/cup", "desk/hat", "shelf/cup", "shelf/hat", "shelf/_"))
    common = ("data", "import", folder, "--name", "mine", "--size", 40, "--group", "folder", "--workers", 1)
    said = mmssl(*common, "--dry-run", "--preview", "sheet.png")
    assert said.code == 0, said.err
    assert (tmp_path / "sheet.png").exists()
    assert not (tmp_path / "workspace").exists()
    done = mmssl(*common, "--test", 0.5)
    assert done.code == 0, done.err
    listed = mmssl("data", "list").out
    for words in ("20 rows of rgb, depth; 16 labelled", "`mmssl extract --data mine --size 40`"):
        assert words in listed
    assert "20 rows, 15 of them with every modality" in done.out
    assert done.out.splitlines()[-1] == f"{tmp_path}/workspace/images/mine-40: 20 rows"
    store = ImageStore.open(tmp_path / "workspace" / "images" / "mine-40")
    assert store.index.dataset == "mine"
    assert store.index.rows is not None
    groups = np.array(store.index.rows.groups)
    test = np.array(store.index.rows.test)
    assert sorted(set(groups[test].tolist())) in (
        ["desk/cup", "desk/hat"],
        ["desk/cup", "shelf/hat"],
        ["desk/hat", "shelf/cup"],
        ["shelf/cup", "shelf/hat"],
    )
    assert mmssl(*common, "--test", 0.5).out == done.out
    with pytest.raises(DataError, match="only the pictures of mine") as caught:
        shard_paths("mine", (), tmp_path / "workspace")
    assert (
        caught.value.hint == "`mmssl extract --data mine` with the --size and --depth-encoding of the import makes it"
    )
    (tmp_path / "workspace" / "images" / "mine-40").rename(tmp_path / "workspace" / "images" / "mine")
    with pytest.raises(DataError, match="only the pictures of mine") as caught:
        shard_paths("mine", (), tmp_path / "workspace")
    assert caught.value.hint == "`mmssl extract --data mine` makes it"


def test_frames_without_groups_are_warned_of(mmssl: Command, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    done = mmssl("data", "import", folder, "--name", "mine", "--test", 0.5, "--dry-run")
    assert done.code == 0
    assert "--group folder" in done.err


def test_metadata_says_which_part_a_row_is_in(mmssl: Command, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "mine")
    lines = ["rgb_file_name,depth_file_name,label,split"]
    lines += [
        f"{label}\\rgb\\{row:04d}.png,,{label},{'test' if row > 2 else 'train'}"
        for label in ("cup", "hat")
        for row in range(4)
    ]
    (folder / "metadata.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    done = mmssl("data", "import", folder / "metadata.csv", "--name", "mine", "--size", 40, "--workers", 1)
    assert done.code == 0, done.err
    assert "test part: 2 rows, by the column split" in done.out
    rows = ImageStore.open(tmp_path / "workspace" / "images" / "mine-40").index.rows
    assert rows is not None
    assert sum(rows.test) == 2
    assert rows.lacking == {"depth": tuple(range(8))}
    refused(
        mmssl("data", "import", folder, "--name", "mine", "--test", 0.2), 2, "has a column split, which says it already"
    )


Spoil = Callable[[Path], object]


def all_of(camera: str, values: NDArray[Any]) -> Spoil:
    return lambda folder: [save(path, values) for path in folder.glob(f"*/{camera}/*.png")]


def table(*lines: str) -> Spoil:
    return lambda folder: (folder / "metadata.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("spoil", "options", "code", "words"),
    [
        (lambda folder: save(folder / "cup/color/0001.png", colour(1)), (), 1, "are both the colour picture of"),
        (table("rgb_file_name", "cup/rgb/0001.png"), (), 1, "has no column label, so there is nothing to learn"),
        (table("rgb_file_name,label", "cup/rgb/0001.png,"), (), 1, "no row has a label (the column label says so)"),
        (table("rgb_file_name,label", "cup/rgb/0001.png,cup"), (), 1, "all labels are 'cup'"),
        (table("rgb_file_name,label,group,split", "cup/rgb/0001.png,cup,g,train", "hat/rgb/0001.png,hat,g,test"),
         (), 1, "the group 'g' has rows in both splits"),
        (table("rgb_file_name,label", "../other.png,cup"), (), 1, "lies outside the folder of metadata.csv"),
        (table("rgb_file_name,label,id", "cup/rgb/0001.png,a,1", "hat/rgb/0001.png,b,1"), (), 1, "the id '1' occurs"),
        (table("rgb_file_name,label", "cup/rgb/0001.png,a", "x.png,b"), ("--strict",), 1, "line 3: there is no file"),
        (all_of("depth", colour(1)), (), 1, "has 3 channels, but depth has one"),
        (all_of("depth", depth(1).astype("u1")), (), 1, "has 8 bits per pixel"),
        (all_of("rgb", depth(1)), (), 1, "looks like depth"),
        (lambda _: None, ("--group", "day"), 1, "has no column 'day' to group by"),
        (lambda _: None, ("--group", "folder", "--test", 0.2), 1, "its groups cannot be divided"),
        (lambda _: None, ("--test", 20), 2, "the share of rows for testing lies between 0 and 1"),
        (lambda _: None, ("--depth-encoding", "normals"), 2, "needs the camera's focal length"),
        (lambda _: None, ("--distribution", "rgb=gaussian"), 2, "--distribution is for vectors"),
        (lambda _: None, ("--size", 5), 2, "size 5"),
        (lambda _: None, ("--name", "hm-mnist"), 2, "is the name of a data set that mmssl knows"),
        (lambda _: None, ("--name", "nm-mnist-r60-n0.3"), 2, "is the name of a data set that mmssl knows"),
        (lambda _: None, ("--name", "rgbd"), 2, "is the name of a data set that mmssl knows"),
        (lambda _: None, ("--name", "a/b"), 2, "a name has letters, digits"),
        (lambda _: None, ("--name", "mine-split-3"), 2, "a name cannot end in a number of a split"),
        (lambda _: None, ("--name", "mine-validation"), 2, "a name cannot end in -validation"),
        (lambda _: None, ("--name", "mine.h5"), 2, "a name cannot end in a file's suffix"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_imported(
    spoil: Spoil, options: tuple[object, ...], code: int, words: str, mmssl: Command, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "mine")
    spoil(folder)
    refused(mmssl("data", "import", folder, "--name", "mine", *options), code, words)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--distribution", "camera=poisson"), 2, "there is no distribution 'poisson'"),
        (("--distribution", "lidar=gaussian"), 2, "there is no modality 'lidar'"),
        (("--distribution", "camera=nonnegative"), 2, "its values reach from -"),
        (("--distribution", "camera"), 2, "is not MODALITY=NAME"),
        (("--distribution", "on=gaussian", "--distribution", "on=gaussian"), 2, "is given twice"),
        (("--preview", "sheet.png"), 2, "--preview shows pictures"),
        (("--group", "folder"), 1, "has no column 'folder' to group by"),
    ],
)
def test_vectors_that_cannot_be_imported(
    options: tuple[object, ...], code: int, words: str, mmssl: Command, vectors: Path, tmp_path: Path
) -> None:
    refused(mmssl("data", "import", vectors, "--name", "mine", *options), code, words)
    assert not (tmp_path / "workspace").exists()


def test_a_shard_of_that_name_that_was_made_otherwise(
    mmssl: Command, vectors: Path, tmp_path: Path, make_shard: Callable[..., Shard]
) -> None:
    folder = tmp_path / "workspace" / "shards"
    folder.mkdir(parents=True)
    content = make_shard(folder / "mine.h5").path.read_bytes()
    done = mmssl("data", "import", vectors, "--name", "mine")
    assert done.code == 1
    assert "mine.h5: exists, and was not made by `mmssl data import`" in done.err
    assert (folder / "mine.h5").read_bytes() == content


def test_a_source_that_is_none(mmssl: Command, tmp_path: Path) -> None:
    refused(mmssl("data", "import", "absent", "--name", "mine"), 2, "absent: there is no such file or folder")
    write_frames(tmp_path)
    refused(mmssl("data", "import", "raw", "--name", "mine"), 1, "Washington", "mmssl preprocess rgbd")
