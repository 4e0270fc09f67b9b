"""Servers for tests: an application on a port of its own, and a model that takes pictures to serve."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from commands.encoders import locate, open_encoder
from commands.serving_pictures import StorePictures
from pipeline.features import extract, vgg
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import ImageSettings
from pipeline.shards.shard import Shard
from tests.support.imported_pictures import Frame, import_pictures
from tests.support.small_networks import SSHMVAE_KL
from tests.support.tiny_vgg import TinyVgg
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import open_model
from trainer.jobs.api import train
from trainer.serving.application import Server
from trainer.serving.limits import Limits
from trainer.serving.server import listen, run

CLASSES = ("cup", "hat", "tea_pot")
TRAINING, TESTING = 24, 9  # frames


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serves an application from a thread of this process, at the address that is given."""
    addresses: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=run, args=(app, listening, addresses.put, stop.is_set))
    thread.start()
    try:
        yield addresses.get(timeout=30)
    finally:
        stop.set()
        thread.join(60)
        listening.close()
        assert not thread.is_alive()


@dataclass(frozen=True)
class PictureModel:
    """A bundle that takes two pictures a row, the shard it was trained on, and where its pictures lie."""

    bundle: Path
    shard: Path
    pictures: Path

    def server(self, limits: Limits | None = None, token: str | None = None) -> Server:
        """What `mmssl serve BUNDLE --examples SHARD` serves."""
        model, shard = open_model(self.bundle, "cpu", open_encoder, locate), Shard.open(self.shard)
        return Server(model, StorePictures(model, shard), shard, limits or Limits(), token)

    def picture(self, number: int, camera: str) -> Path:
        """The file of a frame's picture: 0 is the first."""
        return self.pictures / camera / f"{number:04}.png"


def make_picture_model(folder: Path) -> PictureModel:
    """A model of three classes of noise; `vgg16` must be `TinyVgg`, here and wherever it is used."""
    assert vars(vgg)["vgg16"] is TinyVgg, "the real network has half a gigabyte"
    frames = [Frame(k % len(CLASSES), test=k >= TRAINING) for k in range(TRAINING + TESTING)]
    import_pictures(folder, frames, classes=CLASSES)
    (path,) = extract.extract("mine", folder, (), ImageSettings(), FeatureSettings(), weights="random", device="cpu")
    shard = Shard.open(path)
    (trained,) = train(
        "sshmvae-kl", shard, out=folder / "runs", device="cpu", epochs=8, learning_rate=1e-2, batch_size=8,
        networks=SSHMVAE_KL,
    )  # fmt: skip
    encoders = {name: locate(shard, name) for name in shard.encoders}
    write_bundle(gather([trained], shard=shard, encoders=encoders), folder / "model")
    return PictureModel(folder / "model", path, folder / "pictures")


@contextmanager
def tiny_networks() -> Iterator[None]:
    """Within the block `vgg16` is `TinyVgg`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "vgg16", TinyVgg)
        yield
