"""Opens what `mmssl suggest` asks: runs or bundles, with the shard that they were trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.finding import locate_shard
from pipeline.shards.shard import Shard
from trainer.data.answers import answered
from trainer.inference.bundle import CARD, verify
from trainer.inference.bundle_reading import read_bundle
from trainer.inference.loading import load_runs
from trainer.inference.network import Network, read_settings
from trainer.inference.suggestions import TrainedOn
from trainer.models.registry import card as model_card
from trainer.training.run_folder import Run


def open_models(folders: Sequence[Path], places: Sequence[Path], device: torch.device) -> tuple[list[TrainedOn], Shard]:
    """The models of runs and bundles, and the shard that all of them were trained on, with their answers in it.

    Args:
        places: where to look for the shard if it has moved.

    Raises:
        DataError: a folder holds neither, one is damaged, or the shard is not found.
        UsageError: they were trained on different shards, or cannot say anything of rows.
    """
    models, shards = list[TrainedOn](), list[Shard]()
    runs = []
    for folder in folders:
        if (folder / CARD).exists():
            model, shard = _of_bundle(folder, places, device)
            models.append(model)
            shards.append(shard)
        else:
            runs.append(Run.open(folder, places))
    for loaded in load_runs(runs, device):
        trained, settings = loaded.generative, loaded.run.settings
        completions = model_card(settings.model).completions
        network = Network(
            trained.model,
            trained.noise,
            settings,
            loaded.data.modalities,
            completions[0] if completions else "none",
            device,
        )
        models.append(TrainedOn(network, (settings,)))
        shards.append(loaded.shard)
    for shard in shards[1:]:
        if (shard.digest, shard.classes) != (shards[0].digest, shards[0].classes):
            raise UsageError(
                f"the models were trained on different data: {shards[0].path} and {shard.path}, or other classes",
                "an ensemble is made of runs of one command: mmssl train ... --seeds 0..4",
            )
    settings = models[0].settings[0]
    together = {row: label for model in models for one in model.settings for row, label in one.answers}
    joined = settings.model_copy(update={"answers": tuple(sorted(together.items()))})
    return models, answered(shards[0], joined)


def _of_bundle(folder: Path, places: Sequence[Path], device: torch.device) -> tuple[TrainedOn, Shard]:
    bundle = read_bundle(folder)
    predictor = bundle.predictor(device, str(folder))
    verify(bundle, folder, predictor)
    settings = read_settings(bundle.card, str(folder))
    if not settings.digest:
        raise DataError(f"{folder} does not say which shard it was trained on", "give the run's folder instead")
    # A bundle knows no path: the shard is looked for in the places alone.
    shard = Shard.open(locate_shard(settings.digest, folder / "shard.h5", folder, places))
    replicas = tuple(settings.model_copy(update={"seed": seed}) for seed in bundle.card.seeds)
    return TrainedOn(predictor.network, replicas), answered(shard, settings)
