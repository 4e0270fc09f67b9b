"""Gathers finished runs into a bundle: their weights as one stack, and what is measured of them on their shard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.versions import versions
from pipeline.shards.schema import Features, Scaling
from pipeline.shards.shard import Shard
from trainer.data.selection import choose_modalities
from trainer.inference.bundle import Bundle, Check, id_hash
from trainer.inference.card import BundleCard, LabelType, ModalityCard, SubsetCard
from trainer.inference.loading import CPU, shard_of
from trainer.inference.network import Network, check_predicts, make_network
from trainer.inference.predictor import Predictor
from trainer.inference.subsets import Abstain, measure, read_rows
from trainer.inference.unlikeness import Reference
from trainer.models.registry import card as model_card
from trainer.settings.run_settings import differences
from trainer.training.run_folder import Run

TARGET = 0.99  # accuracy of the answers, unless another is asked for
CHECK_ROWS = 8
_KEPT = ("mmssl", "numpy", "torch", "device", "threads")  # of a run's provenance: no names of hosts and no paths


def gather(
    runs: Sequence[Run],
    *,
    shard: Shard | None = None,
    abstain: Abstain | None = None,
    encoders: Mapping[str, Path] | None = None,
    label_type: LabelType = "text",
    device: torch.device = CPU,
) -> Bundle:
    """The bundle of finished runs that differ in nothing but their seed.

    Args:
        shard: the shard they were trained on; None to open it where they found it.
        abstain: None to choose thresholds for the usual target.
        encoders: by modality, the file of what made the shard's features.

    Raises:
        UsageError: the runs are of different models, data or settings, or cannot predict.
        DataError: a run is not done or damaged, or the shard is missing or not the one they were trained on.
    """
    _check_alike(runs)
    settings = runs[0].settings
    check_predicts(settings)
    weights = _stacked(runs)
    shard = shard or shard_of(runs[0])
    modalities = choose_modalities(shard, settings.modalities)
    names = [modality.name for modality in modalities]
    completions = model_card(settings.model).completions
    abstain = abstain or Abstain(target=TARGET)
    card = BundleCard(
        program=versions()["mmssl"],
        dataset=shard.dataset,
        classes=shard.classes,
        label_type=label_type,
        modalities=tuple(
            ModalityCard(
                name=m.name,
                width=m.width,
                distribution=m.distribution,
                encoder=dict(shard.encoders[m.name]) if m.name in (encoders or {}) else None,
            )
            for m in modalities
        ),
        settings=settings.model_dump(mode="json"),
        seeds=tuple(run.settings.seed for run in runs),
        completion=completions[0] if completions else "none",
        target_accuracy=abstain.target if shard.test.rows and abstain.below is None else None,
        provenance=_provenance(runs, shard),
    )
    network = make_network(card, settings, weights, device, str(runs[0].folder))
    subsets, references = measure(network, shard, abstain)
    card = card.model_copy(update={"subsets": subsets})
    scaling = {name: shard.scaling[name] for name in names if name in shard.scaling}
    labelled = sorted({id_hash(name) for run in runs for name in run.labelled_ids()})
    return Bundle(
        card=card,
        weights=weights,
        scaling=scaling,
        references={number: _on(CPU, one) for number, one in references.items()},
        labelled=np.array(labelled, np.int64),
        check=_check(network, card, shard, scaling),
        encoders=dict(encoders or {}),
    )


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs:
        if not run.done:
            raise DataError(f"{run.folder} is not done", "the same mmssl train command resumes it")
    for run in runs[1:]:
        alike = run.settings.model_copy(update={"seed": first.settings.seed})
        if alike != first.settings:
            apart = differences(alike, first.settings)[0]
            raise UsageError(
                f"{run.folder} differs from {first.folder} in more than its seed: {apart[:200]}",
                "an ensemble is made of runs of one command: mmssl train ... --seeds 0..4",
            )
    seeds = [run.settings.seed for run in runs]
    twice = [run.folder for run in runs if seeds.count(run.settings.seed) > 1]
    if twice:
        raise UsageError(f"{twice[0]} and {twice[-1]} are the same run: they have the same seed")


def _stacked(runs: Sequence[Run]) -> dict[str, Tensor]:
    replicas = [run.read_weights() for run in runs]
    for run, weights in zip(runs, replicas, strict=True):
        if {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in replicas[0].items()
        }:
            raise DataError(f"the weights in {run.folder} do not fit its settings", "delete the folder, train again")
    return {name: torch.stack([weights[name] for weights in replicas]) for name in replicas[0]}


def _provenance(runs: Sequence[Run], shard: Shard) -> dict[str, Any]:
    trained = runs[0].provenance()
    facts = {name: trained[name] for name in _KEPT if isinstance(trained.get(name), str | int)}
    return {"shard": shard.digest, "runs": [run.settings.fingerprint() for run in runs], "trained with": facts}


def _check(network: Network, card: BundleCard, shard: Shard, scaling: Mapping[str, Scaling]) -> Check:
    """A few rows, before scaling, given one subset of the modalities after another, and their probabilities."""
    part = shard.test if shard.test.rows else shard.train
    rows = np.arange(min(CHECK_ROWS, part.rows))
    own: list[SubsetCard] = [subset for subset in card.subsets if subset.given]
    there = np.stack([part.has(name)[rows] for name in card.names], axis=1)
    wanted = np.array([[name in own[-1 - row % len(own)].given for name in card.names] for row in rows], np.bool_)
    present = np.where((there & wanted).any(1, keepdims=True), there & wanted, there)
    x, raw = read_rows(part, card.names, rows), dict[str, Features]()
    for m, name in enumerate(card.names):
        x[name] = np.where(present[:, m : m + 1], x[name], np.float32(0))
        raw[name] = np.where(present[:, m : m + 1], unscaled(x[name], scaling.get(name)), np.float32(0))
    return Check(raw, present, Predictor(card, network, {}).probabilities(x, present))


def unscaled(values: Features, scaling: Scaling | None) -> Features:
    """Values `[n, D]` before they were scaled."""
    if scaling is None:
        return values
    original: Features = (values * scaling.deviation + scaling.mean).astype(np.float32)
    return original


def _on(device: torch.device, one: Reference) -> Reference:
    return Reference(one.latents.to(device), one.distances.to(device), one.surprise.to(device))
