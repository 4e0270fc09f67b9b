"""An image store to extract from, and what undisturbed extraction makes of it."""

import subprocess
from pathlib import Path

import pytest

from pipeline.features import vgg
from pipeline.images.preprocess import preprocess
from tests.support.extraction import IMAGES, extract
from tests.support.rgbd_frames import contents, write_frames
from tests.support.tiny_vgg import TinyVgg


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "vgg16", TinyVgg)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an image store; not to be changed."""
    root = tmp_path_factory.mktemp("prepared")
    write_frames(root)
    preprocess("rgbd", root, IMAGES, workers=1)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", prepared / "images", tmp_path], check=True)
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that splits 0 and 3 end as."""
    root = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(["cp", "-r", prepared / "images", root], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "vgg16", TinyVgg)
        extract(root, (0, 3))
    return contents(root)
