"""Pictures for the pages of `mmssl serve`: how files are read, and those in an image store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError

if TYPE_CHECKING:
    from pipeline.images.store import ImageModality
    from pipeline.shards.shard import Shard
    from trainer.inference.loaded_model import LoadedModel

_TITLES = {"rgb": "RGB", "depth": "depth"}
_MOST_KEPT = 2000  # pictures in memory


class StorePictures:
    """The pictures that a model takes, and those that a shard was made of where its image store is at hand.

    Raises:
        DataError: there is an image store, but it cannot be read.
    """

    def __init__(self, model: "LoadedModel", shard: "Shard | None") -> None:
        from pipeline.features.origin import image_store_of

        self._model, self._shard = model, shard
        self._store = None if shard is None else image_store_of(shard)
        self._known = set() if self._store is None else set(self._store.ids)
        self._kept: dict[tuple[str, str], NDArray[np.uint8]] = {}
        self.titles: Mapping[str, str] = {}
        for name in model.card.names:
            camera = self._camera(name)
            if camera is not None and self._takes_pictures(name):
                self.titles = {**self.titles, name: _TITLES.get(camera, camera)}

    def size(self, path: Path) -> tuple[int, int]:
        """Width and height of a picture file."""
        from pipeline.datasets.pictures import picture_facts

        return picture_facts(path).size

    def prepared(self, modality: str, path: Path) -> NDArray[np.uint8]:
        """A picture file as the model's encoder sees it."""
        encoder: Any = self._model.encoder(modality)
        pixels: NDArray[np.uint8] = encoder.prepare(path)
        return pixels

    def stored(self, modality: str, ids: Sequence[str]) -> list[NDArray[np.uint8] | None]:
        """The pictures of rows, in the image store beside the shard."""
        camera, store = self._camera(modality), self._store
        if camera is None or store is None:
            return [None] * len(ids)
        lacking = {name for name in ids if (modality, name) not in self._kept} & self._known
        if lacking:
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
            order = [name for name in store.ids if name in lacking]
            images = store.images(_as_modality(camera), order)
            self._kept |= {(modality, name): pixels for name, pixels in zip(order, images, strict=True)}
        return [self._kept.get((modality, name)) for name in ids]

    def _camera(self, modality: str) -> str | None:
        """The camera whose pictures a modality is of."""
        from pipeline.features.plans import NAMES
        from pipeline.images.store import MODALITIES

        recipes = [next((m.encoder for m in self._model.card.modalities if m.name == modality), None)]
        if self._shard is not None:
            recipes.append(dict(self._shard.encoders.get(modality, {})) or None)
        named = next((recipe["modality"] for recipe in recipes if recipe and "modality" in recipe), None)
        if named is not None:
            return str(named)
        if self._shard is None or self._shard.provenance.get("made by") != "mmssl extract":
            return None
        by_name = {name: camera for camera, name in NAMES.items()} | {camera: camera for camera in MODALITIES}
        return by_name.get(modality)

    def _takes_pictures(self, modality: str) -> bool:
        try:
            self._model.encoder(modality)
        except DataError:
            return False
        return True

    def title(self, modality: str) -> str:
        """The name of a modality for people: its camera's, or its own."""
        camera = self._camera(modality)
        return modality if camera is None else _TITLES.get(camera, camera)


def _as_modality(camera: str) -> "ImageModality":
    return "rgb" if camera == "rgb" else "depth"
