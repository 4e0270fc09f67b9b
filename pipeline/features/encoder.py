"""The network that made a shard's features, kept so that a new picture becomes the same features.

It is one safetensors file: the layers up to the one that is taken, and a recipe that says how a picture is prepared.
The file stands alone: it can be copied anywhere, and nothing in it is executed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from pipeline.datasets.pictures import colour_of, depth_of, read_colour, read_depth
from pipeline.features.backbones import Backbone, InputRecipe, blank_trunk, fewest_parameters
from pipeline.features.extraction import forward
from pipeline.features.fine_tuning import FeatureSettings
from pipeline.features.weights import VGG16, weight_fault
from pipeline.images.depth import DepthEncoding, encode_depth
from pipeline.images.resize import SIZE, Bytes, resize_rgb
from pipeline.images.store import RECIPE, ImageModality, ImageSettings
from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.tensor_files import (
    TensorFile,
    digest_of,
    read_tensor_file,
    read_values,
    write_tensor_file,
)
from pipeline.runtime.versions import newer
from pipeline.shards.schema import VALIDATION, Features
from pipeline.shards.shard import Shard

VERSION = 1  # of the file
SUFFIX = ".encoder.safetensors"
Picture = Path | str | Image.Image | NDArray[Any]
_BATCH = 64  # pictures that are prepared and encoded together
_HINT = "make it again (`mmssl extract ... --keep-encoder`), or copy it again from where it is whole"


class EncoderRecipe(BaseModel):
    """All that decides the features of a picture.

    Attributes:
        modality: of the pictures, `rgb` or `depth`.
        backbone: torchvision's name of the network.
        layer: which layer's output the features are, in words.
        width: D, their number.
        size: pixels per side of a prepared picture.
        depth_encoding: how depth becomes colours; None for `rgb`.
        preparation: the version of the code that prepares pictures (`pipeline.images.store.RECIPE`).
        input: what the network expects of a prepared picture.
        digest: sha256 of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: ImageModality
    backbone: str = Field(max_length=100)
    layer: str = Field(max_length=200)
    width: int = Field(ge=1)
    size: int = Field(ge=32, le=1024)
    depth_encoding: DepthEncoding | None
    preparation: int = Field(ge=1)
    input: InputRecipe
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Encoder:
    """Turns pictures of one modality into features, as `mmssl extract` did for the shard.

    The features are those of the network. Where a shard records a scaling of the modality (`Shard.scaling`), its rows
    are these features scaled by it.

    Attributes:
        recipe: `EncoderRecipe` as plain values.
        width: D.
        origin: identifies the extraction that it was made in; empty for none.
    """

    def __init__(self, recipe: EncoderRecipe, network: nn.Module, origin: str = "") -> None:
        self.recipe: dict[str, Any] = recipe.model_dump(mode="json")
        self.width = recipe.width
        self.origin = origin
        self._recipe = recipe
        self._network = network.eval()
        self._device = next(network.parameters()).device

    @property
    def details(self) -> EncoderRecipe:
        """The recipe, checked."""
        return self._recipe

    @property
    def network(self) -> nn.Module:
        """The network up to the layer that is taken."""
        return self._network

    @classmethod
    def of(
        cls,
        network: nn.Module,
        width: int,
        backbone: Backbone,
        modality: ImageModality,
        images: ImageSettings,
        origin: str = "",
    ) -> Self:
        """The encoder that consists of a trunk (`pipeline.features.backbones.trunk`), for images of these settings."""
        recipe = EncoderRecipe(
            modality=modality,
            backbone=backbone.name,
            layer=backbone.layer,
            width=width,
            size=images.size,
            depth_encoding=images.depth_encoding if modality == "depth" else None,
            preparation=images.recipe,
            input=backbone.input,
            digest=digest_of(_tensors(network)),
        )
        return cls(recipe, network, origin)

    @classmethod
    def open(cls, path: Path, device: str = "cpu") -> Self:
        """Opens an encoder's file, verifies every byte of it, and puts the network on a device (cpu, cuda, auto).

        Raises:
            DataError: the file is missing, damaged, newer than this program, or no encoder.
            UsageError: there is no such device.
        """
        place = choose_device(device)
        try:
            file = read_tensor_file(path)
        except DataError as error:
            raise DataError(error.message, _HINT) from None
        recipe = _parse(path, file.values)
        try:
            backbone = Backbone.named(recipe.backbone)
        except UsageError:
            raise DataError(f"{path}: is of the network {recipe.backbone}, which is not known here", _HINT) from None
        if sum(tensor.numel() for tensor in file.tensors.values()) < fewest_parameters(backbone):
            raise DataError(f"{path}: is not of a {recipe.backbone}: it has too few weights", _HINT)
        network, width = blank_trunk(backbone)
        fault = _fault(file.tensors, network.state_dict(), recipe, width)
        if fault:
            raise DataError(f"{path}: {fault}", _HINT)
        network.load_state_dict(file.tensors, assign=True)
        network = network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(recipe, network, str(file.values.get("origin", "")))

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all: 0.47 GB for VGG16.

        Raises:
            StorageError: the disk is full or refuses.
        """
        values = {"encoder": VERSION, "recipe": self.recipe, "origin": self.origin}
        write_tensor_file(path, TensorFile(_tensors(self._network), values))

    def __call__(self, pictures: Sequence[Picture]) -> Features:
        """The features of pictures, float32 `[n, D]`.

        Args:
            pictures: each a path, a PIL image, or an array: uint8 `[H, W, 3]` for `rgb`; 16-bit or float `[H, W]` for
                `depth`, 0 or NaN where it is missing. Of any sizes.

        Raises:
            DataError: a picture cannot be read, or is not of this modality.
        """
        rows = [
            self.prepared(np.stack([self.prepare(picture) for picture in pictures[start : start + _BATCH]]))
            for start in range(0, len(pictures), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.width), np.float32)

    def prepared(self, images: Bytes) -> Features:
        """The features of pictures that are prepared already (such as an image store's), float32 `[n, D]`.

        Args:
            images: uint8 `[n, size, size, 3]`.

        Raises:
            DataError: they have another shape or type, or a feature is not finite.
        """
        size = self._recipe.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            expected = f"uint8 [n, {size}, {size}, 3]"
            raise DataError(f"prepared images are {expected}, not {images.dtype} {list(images.shape)}")
        rows = np.empty((len(images), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                pixels = torch.tensor(images[start : start + _BATCH], device=self._device)
                rows[start : start + _BATCH] = forward(self._network, self._recipe.input, pixels).cpu().numpy()
        if not np.isfinite(rows).all():
            raise DataError(f"the encoder of {self._recipe.modality} gives a feature that is not finite", _HINT)
        return rows

    def prepare(self, picture: Picture) -> Bytes:
        """One picture as the network sees it, uint8 `[size, size, 3]`, by the code that fills an image store.

        Raises:
            DataError: it cannot be read, or is not of this modality.
        """
        recipe, name = self._recipe, f"the given {self._recipe.modality} picture"
        given = Path(picture) if isinstance(picture, str) else picture
        if recipe.depth_encoding is None:
            colour = read_colour(given) if isinstance(given, Path) else colour_of(given, name)
            return resize_rgb(colour, recipe.size)
        depth = read_depth(given) if isinstance(given, Path) else depth_of(given, name)
        return encode_depth(depth, recipe.depth_encoding, size=recipe.size)


def read_encoder_recipe(path: Path) -> tuple[dict[str, Any], str]:
    """An encoder's recipe and origin, without its weights, which are not verified.

    Raises:
        DataError: the file is missing, damaged, newer than this program, or no encoder.
    """
    values = read_values(path)
    return _parse(path, values).model_dump(mode="json"), str(values.get("origin", ""))


def origin_of(recipe: Mapping[str, Any]) -> str:
    """What identifies the extraction with this recipe, in an encoder's file."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def locate(shard: Shard, modality: str) -> Path:
    """The file of the encoder that made a modality of a shard: `features/<name>/` beside the shard's own folder.

    Raises:
        DataError: it was not kept, is not there, or is not the one that the shard names; the hint is the command that
            makes it.
    """
    if modality not in {known.name for known in shard.modalities}:
        known = ", ".join(known.name for known in shard.modalities)
        raise DataError(f"{shard.path}: there is no modality {modality!r}, only {known}")
    recipe = shard.encoders.get(modality)
    if recipe is None and shard.provenance.get("made by") != "mmssl extract":
        raise DataError(f"{shard.path}: {modality} was not made of pictures by mmssl, so it has no encoder")
    hint = f"`{extract_command(shard)} --keep-encoder` makes it"
    if recipe is None:
        raise DataError(f"{shard.path}: the encoder of {modality} was not kept", hint)
    name = shard.dataset.removesuffix(VALIDATION)
    paths = [  # a shard may be a link into another workspace
        encoder_path(file.parent.parent / "features" / name, shard.split, str(recipe.get("modality")))
        for file in (shard.path, shard.path.resolve())
    ]
    path = next((path for path in paths if path.is_file()), paths[0])
    if not path.is_file():
        raise DataError(f"{shard.path}: the encoder of {modality} is not there: there is no {path}", hint)
    found, _ = read_encoder_recipe(path)
    if found != recipe:
        raise DataError(f"{path}: is not the encoder of {modality} in {shard.path}: another digest or recipe", hint)
    return path


def encoder_path(folder: Path, split: int | None, modality: str) -> Path:
    """The path of an encoder in a folder of units: `split-3-rgb.encoder.safetensors`, or `rgb....` without splits."""
    return folder / f"{'' if split is None else f'split-{split}-'}{modality}{SUFFIX}"


def extract_command(shard: Shard) -> str:
    """The command that made a shard, as far as its provenance tells."""
    made = shard.provenance
    recipe, images = made.get("recipe", {}), made.get("images", {})
    dataset, settings = images.get("dataset", "?"), images.get("settings", {})
    defaults = FeatureSettings().model_dump() | {"epochs": 200 if shard.split is not None else 0}
    words = ["mmssl extract", f"--data {dataset}"]
    if shard.split is not None:
        words.append(f"--split {shard.split}")
    for option, value, default in (
        ("depth-encoding", settings.get("depth_encoding"), "jet"),
        ("size", settings.get("size"), SIZE),
        ("backbone", recipe.get("backbone", VGG16), VGG16),
        ("weights", made.get("weights"), "imagenet"),
        *(
            (option, recipe.get("settings", {}).get(name), defaults[name])
            for option, name in (
                ("labelled", "labelled"),
                ("epochs", "epochs"),
                ("batch-size", "batch_size"),
                ("lr", "learning_rate"),
                ("seed", "seed"),
            )
        ),
    ):
        if value is not None and value != default:
            words.append(f"--{option} {value}")
    return " ".join([*words, f"--name {shard.dataset.removesuffix(VALIDATION)}"])


def _fault(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], recipe: EncoderRecipe, width: int
) -> str | None:
    """What is wrong with the weights of an encoder's file."""
    fault = weight_fault(tensors, expected, "", recipe.backbone)
    if fault:
        return fault
    for name, tensor in expected.items():
        if name not in tensors or tensors[name].dtype != tensor.dtype:
            return f"is not of a {recipe.backbone}: {name} is missing, or of another type"
    if width != recipe.width:
        return f"gives {width} features, and its recipe says {recipe.width}"
    return None if digest_of(tensors) == recipe.digest else "its weights are not those that its recipe names"


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _parse(path: Path, values: Mapping[str, Any]) -> EncoderRecipe:
    version = values.get("encoder")
    if type(version) is not int:
        raise DataError(f"{path}: is not an encoder", _HINT)
    if version > VERSION:
        raise newer(path, f"encoder {version}", f"reads encoder {VERSION}")
    try:
        recipe = EncoderRecipe.model_validate(values.get("recipe"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise DataError(f"{path}: its recipe is not that of an encoder: {where}: {first['msg']}", _HINT) from None
    if recipe.preparation != RECIPE:
        raise DataError(f"{path}: its pictures are prepared in another way (version {recipe.preparation})", _HINT)
    if (recipe.depth_encoding is None) != (recipe.modality == "rgb"):
        raise DataError(f"{path}: its recipe is not that of an encoder: depth_encoding does not fit", _HINT)
    return recipe
