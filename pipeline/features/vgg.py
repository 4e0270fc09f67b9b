"""VGG16 as torchvision builds it: loading its weights, and a new last layer for our classes.

Its adaptive pooling gives the first fully connected layer a 7 x 7 grid for any image side of at least 32 pixels.
Nothing here touches the global random state: every draw is a function of a seed and a purpose.
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
# The normalisation that the ImageNet weights expect of RGB in [0, 1]; depth, encoded as colours, is treated the same.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LAST = "classifier.6"  # the layer that is replaced by one for our classes
_REASON_CHARACTERS = 120  # of an error from torch, at most


@dataclass(frozen=True)
class Weights:
    """The weights a network starts from: the file and its sha256, both None for random weights.

    The file of `imagenet` may not exist yet: `located` fetches it.
    """

    name: str
    sha256: str | None = None
    path: Path | None = None

    @classmethod
    def named(cls, name: str) -> "Weights":
        """The weights called `imagenet` or `random`, or those in the file of that name.

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
        """The same weights with their file available: found in `raw` or `MMSSL_DATA`, or downloaded, and verified.

        Raises:
            DataError: the file has the wrong bytes, or cannot be obtained.
            StorageError: the disk is full or refuses.
        """
        if self.name == "random":
            _log.warning("random weights: the features will be POOR; use them only to try the pipeline out")
        if self.name != "imagenet":
            return self
        (path,) = fetch(MANIFEST, raw).values()
        return replace(self, path=path.resolve())


def seed_of(*purpose: object) -> int:
    """A seed for one purpose, such as ("order", 0, 3, "rgb", epoch): equal purposes give equal seeds."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, purpose)).encode()).digest()[:8], "big") >> 1


class SeededDropout(nn.Module):
    """Dropout that draws its noise from its own generator."""

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
    """VGG16 with the given weights and a new last layer for `classes` classes.

    Raises:
        DataError: the file does not hold the weights of a VGG16; the message says what is wrong.
    """
    network = _blank()
    generator = torch.Generator().manual_seed(seed_of("weights", seed))
    with torch.no_grad():
        if weights.path is None:
            _initialise(network, generator)
        else:
            _load(network, weights.path)
        # Drawn last, from its own seed, so that it does not depend on where the other weights come from.
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
    """Initialises as torchvision does (He 2015 for convolutions), but from our own generator."""
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
            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about unusual files, which the error describes
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:_REASON_CHARACTERS] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: holds no weights that can be read safely: {reason}", hint) from error
    expected = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(_LAST)}
    fault = _weight_fault(state, expected)
    if fault:
        raise DataError(f"{path}: {fault}", hint)
    network.load_state_dict({name: state[name] for name in expected}, strict=False)


def _weight_fault(state: object, expected: Mapping[str, Tensor]) -> str | None:
    """What is wrong with a state dict, or None."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return "holds no state dict of tensors"
    for name, tensor in expected.items():
        if name not in state:
            return f"is not of a VGG16: {name} is missing"
        if state[name].shape != tensor.shape:
            return f"is not of a VGG16: {name} has the shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        if not state[name].isfinite().all():
            return f"{name} holds a value that is not finite"
    extra = [name for name in state if name not in expected and not name.startswith(_LAST)]
    return f"is not of a VGG16: it also has {extra[0]}" if extra else None


def normalise(images: Tensor) -> Tensor:
    """Converts uint8 `[n, S, S, 3]` to float32 `[n, 3, S, S]`, channels last in memory, as the weights expect."""
    mean = torch.tensor(MEAN, device=images.device).mul(255)
    scale = torch.tensor(DEVIATION, device=images.device).mul(255).reciprocal()
    return ((images.float() - mean) * scale).permute(0, 3, 1, 2)
