"""A disk that is full or read-only, under every command: one sentence, exit code 1, and what was there is untouched."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.faults import COMMANDS, FULL, Stage, Tally
from tests.support.rgbd_frames import contents
from tests.support.zygote import Zygote


@pytest.fixture
def workspace(small_disk: Path) -> Path:
    """An empty file system of 8 MB of its own."""
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    return small_disk / "root"


def refused(zygote: Zygote, stage: Stage, root: Path, log: Path, words: str) -> None:
    code = zygote.run(*stage.arguments(root), log=log)
    messages = log.read_text()
    assert code == 1, messages
    assert messages.count("error: ") == 1
    assert words in messages
    assert "Traceback" not in messages
    log.unlink()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("left", [0, 1, 3, 9, 20] if FULL else [1])
def test_a_full_disk(
    name: str, left: int, zygote: Zygote, stages: dict[str, Stage], workspace: Path, tmp_path: Path, tally: Tally
) -> None:
    """Full from the start, or when so many pages of 4 kB are written."""
    stage = stages[name]
    root = stage.workspace(workspace)
    log = tmp_path / "log"
    ballast = root.parent / "ballast"
    free = os.statvfs(root)
    ballast.write_bytes(bytes((free.f_bavail - left) * free.f_bsize))
    before = contents(root)
    refused(zygote, stage, root, log, "the disk is full")
    after = contents(root)
    assert before == {name: after[name] for name in before}
    assert not [name for name in after if name.endswith((".partial", ".lease"))]
    for file in after.keys() - before.keys():  # what was finished before is whole
        if file in stage.end:
            assert after[file] == stage.end[file] or "metrics" in file
    ballast.unlink()
    assert zygote.run(*stage.arguments(root), log=log) == 0, log.read_text()
    assert stage.made(root) == stage.end
    tally("full disks: one sentence, then as undisturbed")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk(
    name: str, zygote: Zygote, stages: dict[str, Stage], workspace: Path, tmp_path: Path, tally: Tally
) -> None:
    stage = stages[name]
    root = stage.workspace(workspace)
    log = tmp_path / "log"

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(root.parent)], check=True)

    remount("ro")
    before = contents(root)
    refused(zygote, stage, root, log, "the disk is read-only")
    assert contents(root) == before
    remount("rw")
    assert zygote.run(*stage.arguments(root), log=log) == 0, log.read_text()
    assert stage.made(root) == stage.end
    remount("ro")
    assert zygote.run(*stage.arguments(root), log=log) == 0, "nothing is to be done, so nothing is to be written"
    tally("read-only disks: one sentence, then as undisturbed, and left alone when all is done")
