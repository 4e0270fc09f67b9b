"""A bundle: a folder that holds a trained model, stands alone, and turns rows into predictions anywhere.

model.json                        the card: everything but the weights, with a digest of itself and of each file
model.safetensors                 the replicas' weights, the scaling, and the latents that unlikeness compares with
encoder-<modality>.safetensors    what turns a picture into the features of a modality, where that is how they were made
check.npz                         rows and their probabilities, which loading reproduces
README.md                         the card in words

It comes from anyone: nothing in it is unpickled or executed, only these plain files are opened, and no memory is taken
for what the card declares before the files are known to hold it. It is written whole or not at all.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features, Scaling
from trainer.inference.card import BundleCard
from trainer.inference.network import EXPORT_HINT, make_network, read_settings
from trainer.inference.predictor import Predictor
from trainer.inference.unlikeness import Reference

CARD, WEIGHTS, CHECK, README = "model.json", "model.safetensors", "check.npz", "README.md"
TOLERANCE = 1e-3  # of the probabilities of the check, between machines
SCALING, REFERENCE, LABELLED, MODEL = "scaling.", "unlikeness.", "labelled", "model."  # names of tensors
PROBABILITIES = "probabilities"  # in the check


@dataclass(frozen=True, eq=False)
class Check:
    """Rows with their answers: values before scaling `[n, D]` (zeros where missing), presence `[n, M]`, `[n, K]`."""

    x: Mapping[str, Features]
    present: NDArray[np.bool_]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bundle:
    """The content of a bundle.

    Attributes:
        weights: by name, `[R, ...]`.
        scaling: of the modalities that have one.
        references: what unlikeness compares with, by the number of the card's entry.
        labelled: `id_hash` of the training rows whose label was given, ascending, `[n]`.
        encoders: by modality, the file of what makes its features.
    """

    card: BundleCard
    weights: Mapping[str, Tensor]
    scaling: Mapping[str, Scaling]
    references: Mapping[int, Reference]
    labelled: NDArray[np.int64]
    check: Check
    encoders: Mapping[str, Path] = field(default_factory=dict)

    def predictor(self, device: torch.device, source: str = "the bundle") -> Predictor:
        """The model, ready to predict.

        Raises:
            DataError: the weights do not fit the card.
        """
        settings = read_settings(self.card, source)
        network = make_network(self.card, settings, self.weights, device, source)
        references = {
            number: Reference(*(t.to(device) for t in (one.latents, one.distances, one.surprise)))
            for number, one in self.references.items()
        }
        return Predictor(self.card, network, references)


def id_hash(name: str) -> int:
    """A number of 64 bits that stands for a row's id."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)


def encoder_file(modality: str) -> str:
    """The name of a modality's encoder in a bundle."""
    return f"encoder-{modality}.safetensors"


def verify(bundle: Bundle, folder: Path, predictor: Predictor | None = None) -> None:
    """Checks that a bundle gives the probabilities that it gave when it was exported.

    Raises:
        DataError: it does not.
    """
    predictor = predictor or bundle.predictor(torch.device("cpu"), str(folder))
    _try_each_subset(predictor, folder)
    x = {
        name: scaled(values, bundle.scaling.get(name), bundle.check.present[:, m])
        for m, (name, values) in enumerate(bundle.check.x.items())
    }
    found = predictor.probabilities(x, bundle.check.present)
    difference = float(np.abs(found - bundle.check.probabilities).max(initial=0))
    if not difference <= TOLERANCE:
        raise DataError(
            f"{folder} gives other probabilities than when it was exported (they differ by {difference:.2g})",
            "it was changed, or this version of mmssl or torch computes otherwise: export it again",
        )


def _try_each_subset(predictor: Predictor, folder: Path) -> None:
    """Predicts a row of zeros given each subset that has an entry: what does not fit together fails here."""
    names = predictor.card.names
    wanted = [set(subset.given or names[: subset.size]) for subset in predictor.card.subsets]
    present = np.array([[name in given for name in names] for given in wanted], np.bool_).reshape(-1, len(names))
    zeros = {m.name: np.zeros((len(present), m.width), np.float32) for m in predictor.card.modalities}
    try:
        predictor(zeros, present[present.any(1)])
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{folder}: its parts do not fit together: {reason}", EXPORT_HINT) from None


def scaled(values: Features, scaling: Scaling | None, present: NDArray[np.bool_]) -> Features:
    """Values `[N, D]` as the model was trained on: scaled, and zeros in rows that lack the modality."""
    result = values if scaling is None else scaling(values)
    return result if present.all() else np.where(present[:, None], result, np.float32(0))
