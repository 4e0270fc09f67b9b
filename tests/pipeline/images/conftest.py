"""A workspace with raw frames and the store that undisturbed preprocessing makes of them."""

import subprocess
from pathlib import Path

import pytest

from tests.support.preprocessing import preprocess
from tests.support.rgbd_frames import write_frames


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with raw frames and the store that one process made of them; not to be changed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_frames(root)
    preprocess(root)
    return root


@pytest.fixture
def root(tmp_path: Path, undisturbed: Path) -> Path:
    """A workspace of the test's own, with the same raw frames."""
    subprocess.run(["cp", "-r", undisturbed / "raw", tmp_path / "raw"], check=True)
    return tmp_path
