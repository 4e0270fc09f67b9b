"""The weights that a network starts from: found by name, obtained, and read without executing anything in them."""

import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pooch
import requests
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights  # type: ignore[import-untyped]

from pipeline.datasets.manifests import TIMEOUT, fetch, load, places, reason_of
from pipeline.runtime.errors import DataError
from pipeline.runtime.files import atomic_path, sha256
from pipeline.runtime.leases import lease

_log = logging.getLogger(__name__)
RANDOM = "random"
VGG16 = "vgg16"  # the paper's network; the only one whose weights have a manifest
_REASON_CHARACTERS = 120  # of an error from torch, at most
_COUNTER = "num_batches_tracked"  # of batch normalisation; files of older versions lack it, and nothing here needs it
# Files that torchvision published before it renamed some layers keep the old names.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


@dataclass(frozen=True)
class Weights:
    """The weights a network starts from: the file and its sha256, both None for random weights.

    The file of `imagenet` may not exist yet: `located` fetches it. For a network without a manifest only the first
    digits of the sha256 are known, those in the published file's name; then `file` is that name, and `url` its address.
    """

    name: str
    sha256: str | None = None
    path: Path | None = None
    backbone: str = VGG16
    file: str | None = None
    url: str | None = None

    @classmethod
    def named(cls, name: str, backbone: str = VGG16) -> "Weights":
        """The weights called `imagenet` or `random`, or those in the file of that name.

        Raises:
            DataError: there is no such file.
        """
        if name == RANDOM:
            return cls(name, backbone=backbone)
        if name == "imagenet":
            if backbone == VGG16:
                (manifest,) = load(VGG16).files
                return cls(name, manifest.sha256)
            url = str(get_model_weights(backbone).DEFAULT.url)
            return cls(name, backbone=backbone, file=url.rsplit("/", 1)[1], url=url)
        path = Path(name)
        if not path.is_file():
            hint = "--weights takes imagenet, random, or the file of a state dict (.pth, .safetensors)"
            raise DataError(f"there is no file of weights {path}", hint)
        return cls(path.name, sha256(path), path.resolve(), backbone)

    @property
    def is_random(self) -> bool:
        """Whether there is no file."""
        return self.name == RANDOM and self.sha256 is None

    @property
    def identity(self) -> str:
        """Tells these weights from all others, before and after they are located."""
        return self.sha256 or self.file or self.name

    def located(self, raw: Path) -> "Weights":
        """The same weights with their file available: found in `raw` or `MMSSL_DATA`, or downloaded, and verified.

        Raises:
            DataError: the file has the wrong bytes, or cannot be obtained.
            StorageError: the disk is full or refuses.
        """
        if self.is_random:
            _log.warning("random weights: the features will be POOR; use them only to try the pipeline out")
        if self.name != "imagenet":
            return self
        if self.file is None or self.url is None:
            (path,) = fetch(self.backbone, raw).values()
        else:
            path = _published(self.file, self.url, raw / self.backbone)
        return replace(self, path=path.resolve())


def _published(file: str, url: str, folder: Path) -> Path:
    """A file of torchvision, whose name ends in the first digits of its sha256: found, or downloaded into `folder`."""
    match = re.search(r"-([0-9a-f]{8,})\.pth$", file)
    if match is None:
        raise DataError(
            f"{file}: its name carries no checksum, so it cannot be verified", "give it with --weights FILE"
        )
    target = folder / file
    with lease(target, wait=lambda: None):  # several jobs that start at once may want it
        for place in places(folder.parent, folder.name):
            path = place / file
            if path.exists():
                if not sha256(path).startswith(match[1]):
                    again = f"move {path} away, and run the same command again"
                    raise DataError(f"{path}: has not the content that the checksum in its name promises", again)
                return path
        _log.info("%s: download from %s", file, url)
        hint = (
            f"download the file yourself and put it into {folder}/, or set MMSSL_DATA to a folder that holds "
            f"{folder.name}/{file}; then run the same command again"
        )
        try:
            with atomic_path(target) as temporary:
                pooch.HTTPDownloader(timeout=TIMEOUT)(url, str(temporary), None)
                if not sha256(temporary).startswith(match[1]):
                    raise DataError(f"cannot get {file}: {url} serves other bytes", hint)
        except requests.RequestException as error:
            raise DataError(f"cannot get {file}: tried {url} ({reason_of(error)})", hint) from error
    return target


def load_weights(network: nn.Module, path: Path, head: str, title: str) -> None:
    """Loads a state dict, `.pth` or `.safetensors`, into a network, but for the layer `head`.

    Args:
        head: the name of the last layer, which is made anew; the file may hold one for any number of classes.
        title: of the network, for messages: `VGG16`.

    Raises:
        DataError: the file does not hold the weights of such a network; the message says what is wrong.
    """
    hint = f"use torchvision's {title.lower()} state dict (--weights imagenet), or weights of that shape"
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
    if isinstance(state, Mapping):
        state = {_new_name(name) if isinstance(name, str) else name: tensor for name, tensor in state.items()}
    expected = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(f"{head}.")}
    fault = weight_fault(state, expected, head, title)
    if fault:
        raise DataError(f"{path}: {fault}", hint)
    network.load_state_dict({name: state[name] for name in expected if name in state}, strict=False)


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def weight_fault(state: object, expected: Mapping[str, Tensor], head: str, title: str) -> str | None:
    """What is wrong with a state dict, or None; layers of the name `head` may be there or not."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return "holds no state dict of tensors"
    article = "an" if title[0] in "aeiou" else "a"
    for name, tensor in expected.items():
        if name not in state:
            if name.endswith(_COUNTER):
                continue
            return f"is not of {article} {title}: {name} is missing"
        if state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, not {tuple(tensor.shape)}"
            return f"is not of {article} {title}: {name} has the shape {shapes}"
        if not state[name].isfinite().all():
            return f"{name} holds a value that is not finite"
    extra = [name for name in state if name not in expected and not str(name).startswith(f"{head}.")]
    return f"is not of {article} {title}: it also has {extra[0]}" if extra else None
