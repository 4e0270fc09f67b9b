"""A model that a person loads and asks: `mmssl.load`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.schema import Features, Modality, Scaling
from pipeline.shards.shard import Shard
from trainer.inference.bundle import CARD, Bundle, verify
from trainer.inference.bundle_reading import encoder_path, read_bundle
from trainer.inference.card import BundleCard
from trainer.inference.exporting import gather, unscaled
from trainer.inference.inputs import Encode, Inputs, Present, check_values, read_inputs, scale
from trainer.inference.loading import shard_of
from trainer.inference.predictions import Predictions
from trainer.inference.predictor import Predictor
from trainer.training.run_folder import Run
from trainer.training.run_listing import SETTINGS

OpenEncoder = Callable[[Path, str], Encode]  # on a device: auto, cpu or cuda
Locate = Callable[[Shard, str], Path]


class LoadedModel:
    """A classifier that takes rows with any of its modalities missing.

    Each method takes `inputs`: by modality an array `[N, D]`, or a list of pictures (paths, arrays, PIL images) if the
    model has an encoder for it. A modality that is None or left out is missing in all rows; one that is None or NaN in
    a row, or False in `present[modality]`, is missing in that row. Values are not scaled beforehand.

    Args:
        encoder_of: what turns pictures of a modality into its features; raises if there is nothing.

    Attributes:
        card: what is known about the model (docs/reference/bundle.md).
    """

    def __init__(self, bundle: Bundle, predictor: Predictor, encoder_of: Callable[[str], Encode]) -> None:
        self.bundle = bundle
        self.predictor = predictor
        self._encoder_of = encoder_of
        self._encoders: dict[str, Encode] = {}

    @property
    def card(self) -> BundleCard:
        """What is known about the model."""
        return self.bundle.card

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities, in order."""
        return self.predictor.network.modalities

    @property
    def classes_(self) -> NDArray[Any]:
        """The class names, `[K]`; numbers or booleans if the labels were."""
        return np.array(self.card.labels)

    def read(self, inputs: Inputs, present: Present = None) -> tuple[dict[str, Features], NDArray[np.bool_]]:
        """The rows as the predictor takes them: scaled values `[N, D]` of each modality, and what is there, `[N, M]`.

        Raises:
            UsageError, DataError: as `predictions`.
        """
        x, there = read_inputs(inputs, present, self.modalities, self.encoder)
        scaled = scale(x, there, self.bundle.scaling, self.card.names)
        check_values(scaled, there, self.modalities)
        return scaled, there

    def predictions(self, inputs: Inputs, present: Present = None) -> Predictions:
        """Everything that the model says of the rows.

        Raises:
            UsageError, DataError: as `trainer.inference.inputs.read_inputs` and `Predictor`.
        """
        return self.predictor(*self.read(inputs, present))

    def predict_proba(self, inputs: Inputs, present: Present = None) -> NDArray[np.float32]:
        """The probability of each class, `[N, K]`."""
        return self.predictor.probabilities(*self.read(inputs, present))

    def predict(self, inputs: Inputs, present: Present = None) -> NDArray[Any]:
        """The most probable class, `[N]`."""
        names: NDArray[Any] = self.classes_[self.predict_proba(inputs, present).argmax(-1)]
        return names

    def unlikeness(self, inputs: Inputs, present: Present = None) -> NDArray[np.float64]:
        """The share of known rows that are less unlike the training rows, in percent, `[N]`; -1 if not known."""
        return self.predictions(inputs, present).unlikeness

    def embed(self, inputs: Inputs, present: Present = None) -> NDArray[np.float32]:
        """The mean of the latent variable, `[N, Z]`; those of several replicas are joined."""
        x, there = self.read(inputs, present)
        network = self.predictor.network

        def latent(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return network.latent_mean(batch).transpose(0, 1).flatten(1)

        with network.computing():
            width = latent(network.batch({m.name: np.zeros((1, m.width), np.float32) for m in self.modalities})).shape
        return self.predictor.collect(x, there, latent, width[1])

    def impute(self, inputs: Inputs, present: Present = None) -> dict[str, Features]:
        """Every modality `[N, D]`: what was given as it is, what was missing as its mean given the rest.

        Raises:
            UsageError: as `predictions`; or the model sees a single modality.
        """
        x, there = self.read(inputs, present)
        network, result = self.predictor.network, dict[str, Features]()
        for m, modality in enumerate(self.modalities):
            values, lacking = np.array(x[modality.name]), np.flatnonzero(~there[:, m])
            if lacking.size:
                some = {name: column[lacking] for name, column in x.items()}

                def made(batch: dict[str, torch.Tensor], name: str = modality.name) -> torch.Tensor:
                    return network.reconstruct(batch, name)

                values[lacking] = self.predictor.collect(some, there[lacking], made, modality.width)
            result[modality.name] = unscaled(values, self.bundle.scaling.get(modality.name))
        return result

    def predict_features(
        self, x: Mapping[str, Features], present: NDArray[np.bool_], scaling: Mapping[str, Scaling]
    ) -> Predictions:
        """Predictions for features as a shard holds them.

        Args:
            x: `[N, D]` of each of the model's modalities; zeros where missing.
            present: `[N, M]`, in the order of the model's modalities.
            scaling: how the shard's features were scaled.

        Raises:
            UsageError: a value lies outside its distribution.
        """
        return self.predictor(self.rescaled(x, present, scaling), present)

    def rescaled(
        self, x: Mapping[str, Features], present: NDArray[np.bool_], scaling: Mapping[str, Scaling]
    ) -> dict[str, Features]:
        """Features as a shard holds them as the predictor takes them; arguments as of `predict_features`.

        Raises:
            UsageError: a value lies outside its distribution.
        """
        names = [modality.name for modality in self.modalities]
        rescaled = dict(x)
        for m, name in enumerate(names):
            ours, theirs = self.bundle.scaling.get(name), scaling.get(name)
            if not _same(ours, theirs):
                raw = {name: unscaled(x[name], theirs)}
                rescaled |= scale(raw, present[:, m : m + 1], {name: ours} if ours else {}, [name])
        check_values(rescaled, present, self.modalities)
        return rescaled

    def encoder(self, modality: str) -> Encode:
        """What turns pictures of a modality into its features.

        Raises:
            DataError: there is nothing.
        """
        if modality not in self._encoders:
            self._encoders[modality] = self._encoder_of(modality)
        return self._encoders[modality]


def open_model(
    folder: Path, device: str, open_encoder: OpenEncoder, locate: Locate, places: Sequence[Path] = ()
) -> LoadedModel:
    """Opens a bundle, or a finished run in its place.

    Args:
        device: of the model and its encoders: auto, cpu or cuda.
        open_encoder: opens the file of an encoder.
        locate: finds the encoder of a shard's modality, for runs.
        places: where to look for a run's shard if it has moved.

    Raises:
        DataError: the folder holds neither, or one that is damaged.
    """
    chosen = choose_device(device)
    if (folder / CARD).exists() or not (folder / SETTINGS).exists():
        if not (folder / CARD).exists():
            raise DataError(
                f"{folder} holds neither a bundle nor a run", "mmssl runs lists runs; mmssl export makes one"
            )
        bundle = read_bundle(folder)
        predictor = bundle.predictor(chosen, str(folder))
        verify(bundle, folder, predictor)
        return LoadedModel(
            bundle, predictor, lambda name: open_encoder(encoder_path(folder, bundle.card, name), device)
        )
    run = Run.open(folder, places)
    shard = shard_of(run)

    def encoder_of(name: str) -> Encode:
        if name not in shard.encoders:
            raise DataError(
                f"{shard.path} has no encoder for '{name}', so the model takes features of it and no pictures",
                "mmssl extract --keep-encoder keeps it",
            )
        return open_encoder(locate(shard, name), device)

    return of_bundle(gather([run], shard=shard, device=chosen), chosen, encoder_of)


def of_bundle(bundle: Bundle, device: torch.device, encoder_of: Callable[[str], Encode] | None = None) -> LoadedModel:
    """A model of a bundle in memory."""
    return LoadedModel(bundle, bundle.predictor(device), encoder_of or _no_encoder)


def _no_encoder(name: str) -> Encode:
    raise UsageError(f"there is no encoder for '{name}': give arrays of numbers [N, D], not pictures")


def _same(ours: Scaling | None, theirs: Scaling | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.deviation, theirs.deviation)
