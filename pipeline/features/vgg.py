"""VGG16 as torchvision builds it: where its weights come from, and a new last layer for our classes.

Its adaptive pooling gives the first fully connected layer its 7 x 7 grid at any image side from 32 pixels on. Nothing
here takes part in the global random state: every draw is a function of a seed and a purpose.
"""

import hashlib
import logging
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG, vgg16  # type: ignore[import-untyped]

from pipeline.datasets.manifests import fetch, load
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import sha256

_log = logging.getLogger(__name__)
MANIFEST = "vgg16"
# What the ImageNet weights expect of RGB in [0, 1]; depth, encoded as colours, is treated alike.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LAST = "classifier.6"


@dataclass(frozen=True)
class Weights:
    """Where the network starts: the bytes' sha256 and the file, which is None for random weights.

    The file of `imagenet` may not be at hand yet: `located` sees to it.
    """

    name: str
    sha256: str | None = None
    path: Path | None = None

    @classmethod
    def named(cls, name: str) -> "Weights":
        """The weights called `imagenet` or `random`, or lying in a file of that name.

        Raises:
            DataError: there is no such file.
        """
        if name == "random":
            return cls(name)
        if name == "imagenet":
            (file,) = load(MANIFEST).files
            return cls(name, file.sha256)
        path = Path(name)
        if not path.is_file():
            hint = "--weights takes imagenet, random, or the file of a state dict (.pth, .safetensors)"
            raise DataError(f"there is no file of weights {path}", hint)
        return cls(path.name, sha256(path), path.resolve())

    def located(self, raw: Path) -> "Weights":
        """The same with their file at hand: found in `raw` or `MMSSL_DATA`, or downloaded, and verified.

        Raises:
            DataError: the file has the wrong bytes, or cannot be had.
            StorageError: the disk is full or refuses.
        """
        if self.name == "random":
            _log.warning("random weights: the features will be POOR; they are for trying the pipeline out, no more")
        if self.name != "imagenet":
            return self
        (path,) = fetch(MANIFEST, raw).values()
        return replace(self, path=path.resolve())


def seed_of(*purpose: object) -> int:
    """A seed for one purpose, such as ("order", 0, 3, "rgb", epoch): equal purposes give equal numbers."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, purpose)).encode()).digest()[:8], "big") >> 1


class SeededDropout(nn.Module):
    """Dropout whose noise comes from a generator of its own."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.rate = rate
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
        return x * kept / (1 - self.rate)


def make_network(weights: Weights, classes: int, seed: int, device: torch.device) -> VGG:
    """VGG16 with these weights and a new last layer for so many classes.

    Raises:
        DataError: the file holds no weights of a VGG16; one sentence says what is wrong.
    """
    network = _blank()
    generator = torch.Generator().manual_seed(seed_of("weights", seed))
    with torch.no_grad():
        if weights.path is None:
            _initialise(network, generator)
        else:
            _load(network, weights.path)
        # Reset last, so that it does not depend on where the other weights come from.
        last = nn.Linear(network.classifier[6].in_features, classes, device="meta").to_empty(device="cpu")
        last.weight.normal_(0, 0.01, generator=generator.manual_seed(seed_of("last layer", seed)))
        last.bias.zero_()
        network.classifier[6] = last
    noise = torch.Generator(device)
    for place, module in enumerate(network.classifier):
        if isinstance(module, nn.Dropout):
            network.classifier[place] = SeededDropout(module.p, noise)
    return network.to(device, memory_format=torch.channels_last)


def _blank() -> VGG:
    with torch.device("meta"):
        network = vgg16(weights=None, init_weights=False)
    return network.to_empty(device="cpu")


def _initialise(network: VGG, generator: torch.Generator) -> None:
    """As torchvision does (He 2015 for convolutions), from our own generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, 0.01, generator=generator)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


def _load(network: VGG, path: Path) -> None:
    hint = "use torchvision's vgg16 state dict (--weights imagenet), or weights of that shape"
    try:
        if path.suffix == ".safetensors":
            given: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file is of an odd kind: the error says it
                given = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: holds no weights that can be read safely: {reason}", hint) from error
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(_LAST)}
    fault = _weight_fault(given, wanted)
    if fault:
        raise DataError(f"{path}: {fault}", hint)
    network.load_state_dict({name: given[name] for name in wanted}, strict=False)


def _weight_fault(given: object, wanted: Mapping[str, Tensor]) -> str | None:
    if not isinstance(given, Mapping) or not all(isinstance(value, Tensor) for value in given.values()):
        return "holds no state dict of tensors"
    for name, tensor in wanted.items():
        if name not in given:
            return f"is not of a VGG16: {name} is missing"
        if given[name].shape != tensor.shape:
            return f"is not of a VGG16: {name} has the shape {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        if not given[name].isfinite().all():
            return f"{name} holds a value that is not finite"
    extra = [name for name in given if name not in wanted and not name.startswith(_LAST)]
    return f"is not of a VGG16: it has {extra[0]} too" if extra else None


def normalise(images: Tensor) -> Tensor:
    """uint8 `[n, S, S, 3]` to float32 `[n, 3, S, S]`, channels last in memory, as the weights expect."""
    mean = torch.tensor(MEAN, device=images.device).mul(255)
    scale = torch.tensor(DEVIATION, device=images.device).mul(255).reciprocal()
    return ((images.float() - mean) * scale).permute(0, 3, 1, 2)
