import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from PIL import Image

from commands.settings_from_options import settings_of
from pipeline.datasets import catalogue
from pipeline.datasets.archives import unpack
from pipeline.datasets.washington import index_dataset, read_frame
from pipeline.images import preprocess as stage
from pipeline.images.depth import encode_depth
from pipeline.images.resize import resize_rgb
from pipeline.images.store import ImageSettings, ImageStore, verify_object
from pipeline.runtime.errors import DataError, Interrupted, StorageError, UsageError
from pipeline.runtime.processes import this_process
from tests.support.rgbd_frames import OBJECTS, ROOT, contents, python, write_frames

SMALL = ImageSettings(size=40)


def preprocess(root, settings=SMALL, **options):
    return stage.preprocess("rgbd", root, settings, **({"workers": 1} | options))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A workspace with raw frames and the store that one process made of them; not to be changed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_frames(root)
    preprocess(root)
    return root


@pytest.fixture
def root(tmp_path, undisturbed):
    """A workspace of the test's own, with the same raw frames."""
    subprocess.run(["cp", "-r", undisturbed / "raw", tmp_path / "raw"], check=True)
    return tmp_path


def test_the_store_holds_every_frames_images(undisturbed):
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


def test_an_object_whole_equals_its_frames_one_by_one(undisturbed):
    frames = index_dataset(undisturbed / "raw" / "rgbd-dataset").objects["hat", 3]
    whole = stage.process_object("hat_3", frames, SMALL, False)
    for k, frame in enumerate(frames):
        alone = stage.process_object("hat_3", [frame], SMALL, False)
        np.testing.assert_array_equal(alone.rgb[0], whole.rgb[k])
        np.testing.assert_array_equal(alone.depth[0], whole.depth[k])


def test_other_settings_have_a_store_of_their_own(root):
    preprocess(root)
    preprocess(root, ImageSettings(size=40, depth_encoding="normals"))
    preprocess(root, ImageSettings(size=36, depth_encoding="raw"))
    assert {path.name for path in (root / "images").iterdir()} == {"rgbd-40", "rgbd-normals-40", "rgbd-raw-36"}
    stores = [ImageStore.open(path) for path in (root / "images").iterdir()]
    assert len({store.digest for store in stores}) == 3
    assert ImageSettings().suffix == ""


def test_what_exists_is_left_and_what_is_damaged_is_made_again(root, undisturbed, caplog):
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
    again = [record.message for record in caplog.records if "made again" in record.message]
    assert len(again) == 2
    assert "cup_4.h5" in again[0]
    assert "hat_2.h5" in again[1]
    untouched = {"cup_1.h5", "hat_3.h5", "bell_pepper_1.h5", "bell_pepper_2.h5"}
    assert untouched == {n for n in times if (folder / n).stat().st_mtime_ns == times[n] and n.endswith("h5")}


def test_a_raw_frame_that_changed_is_noticed(root, caplog):
    store = preprocess(root)
    frame = index_dataset(root / "raw").objects["cup", 1][0]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(frame.rgb)
    Image.fromarray(np.full((9, 9), 700, np.uint16)).save(frame.depth)
    again = preprocess(root)
    assert "raw frames have changed" in caplog.text
    assert again.digest != store.digest
    assert (again.images("rgb", [frame.id]) == 0).all()


def test_a_store_that_is_not_complete_is_refused(root):
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


def truncate(path):
    path.write_bytes(path.read_bytes()[:60])


def test_a_truncated_png_is_listed_and_left_out(root, caplog):
    truncate(index_dataset(root / "raw").objects["cup", 4][1].depth)
    store = preprocess(root)
    sample = "cup_4_1_6"
    assert sample not in store.ids
    assert len(store.ids) == sum(OBJECTS.values()) - 1
    assert list(store.index.skipped) == [sample]
    assert "cup_4_1_6_depthcrop.png: not a readable image" in store.index.skipped[sample]
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
def test_depth_of_8_bits_and_sizes_that_differ_are_listed_and_left_out(root, caplog, spoil, words):
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
def test_strict_makes_an_unreadable_frame_an_error(root, workers):
    truncate(index_dataset(root / "raw").objects["cup", 4][1].rgb)
    with pytest.raises(DataError, match=r"cup_4_1_6_crop\.png: not a readable image") as caught:
        preprocess(root, strict=True, workers=workers)
    assert caught.value.hint
    assert not (root / "images" / "rgbd-40" / "index.json").exists()


def test_an_object_without_a_readable_frame_is_an_error(root):
    for frame in index_dataset(root / "raw").objects["hat", 2]:
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(frame.depth)  # 8 bits
    with pytest.raises(DataError, match=r"not one frame of hat_2 can be read: .*16 bits"):
        preprocess(root)


def test_depth_without_shape_is_told_and_kept(root, caplog):
    frame = index_dataset(root / "raw").objects["cup", 1][0]
    Image.fromarray(np.zeros(read_frame(frame).depth.shape, np.uint16)).save(frame.depth)
    store = preprocess(root)
    assert store.index.flawed == {frame.id: "every depth value is missing"}
    assert frame.id in store.ids
    assert f"no shape in its depth: {frame.id}" in caplog.text


def test_normals_need_the_crops_place(root):
    (index_dataset(root / "raw").objects["cup", 1][0].folder / "cup_1_1_1_loc.txt").unlink()
    with pytest.raises(DataError, match=r"cup_1_1_1_loc\.txt is missing"):
        preprocess(root, ImageSettings(size=40, depth_encoding="normals"))


def test_missing_data_and_impossible_options(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no data set rgbd: looked in") as caught:
        preprocess(tmp_path)
    assert "mmssl data fetch" in str(caught.value.hint)
    with pytest.raises(DataError) as caught:
        stage.preprocess("rgbd-sample", tmp_path, SMALL)
    assert "mmssl data sample" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no RGB-D data set 'kitti'"):
        stage.preprocess("kitti", tmp_path, SMALL)
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "elsewhere"))
    write_frames(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "raw").rename(tmp_path / "elsewhere" / "rgbd")
    assert len(preprocess(tmp_path).ids) == sum(OBJECTS.values())
    with pytest.raises(UsageError, match="--workers"):
        preprocess(tmp_path / "x", workers=0)
    for values, words in (({"size": 20}, "size 20: .*32"), ({"depth_encoding": "hha"}, "depth-encoding hha: .*'jet'")):
        with pytest.raises(UsageError, match=words):
            settings_of(ImageSettings, **values)


def test_the_preview_shows_every_object(undisturbed, tmp_path):
    stage.preview("rgbd", undisturbed, SMALL, tmp_path / "deep" / "sheet.png")
    with Image.open(tmp_path / "deep" / "sheet.png") as sheet:
        assert sheet.height > len(OBJECTS) * 148
        assert len(sheet.getcolors(2**20) or []) > 1000


# The disk.


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(small_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path))
    write_frames(tmp_path)
    (tmp_path / "raw").rename(tmp_path / "rgbd")
    with pytest.raises(StorageError, match="the disk is full"):
        preprocess(small_disk, ImageSettings(size=200))
    folder = small_disk / "images" / "rgbd-200"
    assert all(verify_object(path) for path in folder.iterdir())  # whole files alone, under their final names
    assert not (folder / "index.json").exists()


def test_a_read_only_disk_is_one_sentence_and_a_complete_store_on_it_is_used(small_disk, tmp_path, monkeypatch):
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


def test_a_place_that_cannot_be_written_is_one_sentence(root):
    (root / "images").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write .*images"):
        preprocess(root)


# Several processes, and their sudden end.

RUN = """
import logging, sys
from pathlib import Path
from pipeline.runtime.errors import MmsslError
from pipeline.images.store import ImageSettings
from pipeline.images.preprocess import preprocess

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    try:
        preprocess(
            "rgbd", Path(sys.argv[1]), ImageSettings(size=40), workers=int(sys.argv[2]),
            progress=lambda done, total: print("done", done, flush=True),
        )
    except MmsslError as error:
        print(error)
        sys.exit(error.exit_code)
"""


def wait_for(process, done):
    for line in process.stdout:
        if re.fullmatch(rf"done {done}\n", line):
            return
    raise AssertionError(f"it ended before object {done}")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_object_it_goes_on_to_the_same_store(root, undisturbed, workers):
    dead = replace(this_process(), pid=2**22 + 1)  # more than there can be
    for done in (1, 3) if workers == 1 else (2,):
        process = python(RUN, root, workers)
        wait_for(process, done)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        gone, alive = psutil.wait_procs(children, timeout=15)
        assert not alive, f"left running: {alive}, ended: {gone}"
        assert not (root / "images" / "rgbd-40" / "index.json").exists()
    (root / "images" / "rgbd-40" / f".cup_4.h5.{dead}.partial").write_bytes(b"half")
    process = python(RUN, root, workers)
    process.communicate()
    assert process.returncode == 0
    assert contents(root / "images") == contents(undisturbed / "images")


def workers_of(pid):
    """The worker processes that a command has started by now; what ends at this moment is none of them."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_killed_workers_tasks_are_done_again(root, undisturbed):
    # Frames enough that the worker is in the middle of them.
    process = python(RUN, root, 2)
    wait_for(process, 1)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    workers[0].kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert contents(root / "images") == contents(undisturbed / "images")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_keeps_what_is_done(tmp_path, workers, which):
    write_frames(tmp_path, {f"cup_{k}": 30 for k in range(1, 10)} | {"hat_1": 1, "hat_2": 1})
    process = python(RUN, tmp_path, workers)
    wait_for(process, 2)
    for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
        if one.pid == process.pid or which == signal.SIGINT:  # Ctrl-C reaches all processes of a terminal
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(which)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code, said
    assert f"stopped by {which.name}" in said
    assert "Traceback" not in said
    assert "distributed" not in said  # Dask would tell in many words what its processes lose
    folder = tmp_path / "images" / "rgbd-40"
    assert len(list(folder.iterdir())) >= 2
    assert all(verify_object(path) for path in folder.iterdir())


def test_ctrl_c_while_the_workers_start(tmp_path):
    """A terminal sends it to processes that are still importing, too: they must not tell of it."""
    write_frames(tmp_path)
    process = python(RUN, tmp_path, 2)
    own = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not (started := workers_of(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    for one in (own, *started):
        one.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == Interrupted.exit_code, said
    assert "KeyboardInterrupt" not in said
    assert "Traceback" not in said


@pytest.fixture
def cluster():
    """A scheduler and two workers as a user starts them: processes of their own. Its address."""
    dask = Path(sys.executable).with_name("dask")
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [dask, *arguments],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
        return started[-1]

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    address = next(m[0] for line in scheduler.stderr if (m := re.search(r"tcp://[\d.:]+", line)))
    for _ in range(2):
        start("worker", address, "--nthreads", "1", "--dashboard-address", "127.0.0.1:0", "--no-nanny")
    yield address, started
    for process in reversed(started):
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_cluster_makes_the_same_store(root, undisturbed, cluster):
    address, processes = cluster
    preprocess(root, workers=None, scheduler=address)
    assert contents(root / "images") == contents(undisturbed / "images")
    for process in processes[1:]:
        assert process.poll() is None
    with pytest.raises(UsageError, match="--workers"):
        preprocess(root, ImageSettings(size=50), workers=2, scheduler=address)


@pytest.mark.slow
def test_a_lost_scheduler_is_one_sentence(tmp_path, cluster):
    address, processes = cluster
    write_frames(tmp_path, {f"cup_{k}": 30 for k in range(1, 10)} | {"hat_1": 1, "hat_2": 1})

    def kill(done, _):
        if done == 1:
            processes[0].kill()
            time.sleep(0.5)

    with pytest.raises(DataError, match=f"the Dask scheduler {re.escape(address)} was lost"):
        preprocess(tmp_path, ImageSettings(size=300), workers=None, scheduler=address, progress=kill)


def test_a_scheduler_that_is_not_there_is_one_sentence(root, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(DataError, match=r"cannot reach a Dask scheduler at tcp://127\.0\.0\.1:9"):
        preprocess(root, workers=None, scheduler="tcp://127.0.0.1:9")


# Archives, and the real frames.


def pack(path, members):
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_placed_by_hand_is_taken_and_what_deviates_is_listed(tmp_path, caplog):
    folder = write_frames(tmp_path / "elsewhere")
    members = {f"rgbd-dataset/{name}": content for name, content in contents(folder).items()}
    pack(tmp_path / "raw" / "rgbd-dataset_eval.zip", members)
    found = catalogue.fetch("washington-rgbd", tmp_path)
    assert "only reported" in caplog.text  # the checksum is not the one on record
    assert "category apple is missing" in found
    assert "category hat is not one of the data set's" in found
    assert catalogue.verify("washington-rgbd", tmp_path) == found
    assert len(preprocess(tmp_path).ids) == sum(OBJECTS.values())
    (place,) = [one.place for one in catalogue.known(tmp_path) if one.name == "washington-rgbd"]
    assert place == tmp_path / "raw" / "washington-rgbd" / "unpacked" / "rgbd-dataset"


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "a\\..\\evil.png", "c:evil.png"])
def test_an_archive_that_leads_outside_is_refused_whole(tmp_path, name):
    archive = pack(tmp_path / "bad.zip", {"rgbd-dataset/fine.png": b"1", name: b"2"})
    with pytest.raises(DataError, match="would lie outside the folder; nothing was unpacked"):
        unpack(archive, tmp_path / "in" / "folder")
    assert {path.name for path in tmp_path.rglob("*")} <= {"bad.zip", "in"}


def test_archives_that_are_damaged_or_hold_links_are_refused(tmp_path):
    import zipfile

    archive = tmp_path / "links.zip"
    with zipfile.ZipFile(archive, "w") as file:
        link = zipfile.ZipInfo("rgbd-dataset/link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        unpack(archive, tmp_path / "folder")
    good = pack(tmp_path / "good.zip", {"a/b": bytes(5000)})
    (tmp_path / "cut.zip").write_bytes(good.read_bytes()[:3000])
    content = bytearray(good.read_bytes())
    content[2000] ^= 1
    (tmp_path / "flipped.zip").write_bytes(content)
    for name in ("cut.zip", "flipped.zip"):
        with pytest.raises(DataError, match="is not an intact zip file"):
            unpack(tmp_path / name, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert unpack(good, tmp_path / "folder") == tmp_path / "folder"
    assert (tmp_path / "folder" / "a" / "b").read_bytes() == bytes(5000)


def test_the_real_frames_go_through(real_data, tmp_path, monkeypatch, caplog):
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
