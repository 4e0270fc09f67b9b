"""From a model, shards and options to complete settings, one job per replica."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from trainer.data.memory_limit import choose_windows
from trainer.data.selection import choose_modalities
from trainer.models.card import ModelCard
from trainer.models.registry import card, cards
from trainer.settings.names import RECOMMENDED
from trainer.settings.presets import PRESETS, fitting_preset, preset_values, recommended
from trainer.settings.run_settings import Settings, build


@dataclass(frozen=True)
class Job:
    """One replica to train: its settings and its shard."""

    settings: Settings
    shard: Shard


def plan(
    model: str,
    shards: Sequence[Shard],
    *,
    preset: str | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
    seeds: Sequence[int] = (0,),
    alphas: Sequence[float] = (),
    betas: Sequence[float] = (),
    stack: int = 16,
) -> list[Job]:
    """Every combination of shard, seed, alpha and beta, as complete settings.

    Args:
        shards: one, or one a split.
        preset: the one that fits the shard where None, `best` for the recommended settings on top of it; where the
            shard marks labelled examples, those are taken.
        values: settings that replace the preset's; a `memory_limit` among them becomes the window it leaves room for.
        stack: how many replicas will be trained in one pass, which share the memory limit.

    Raises:
        UsageError: a setting that cannot be.
    """
    about = card(model)
    _check_accepted(about, values)
    jobs = []
    limit, values = values.get("memory_limit"), {key: values[key] for key in values if key != "memory_limit"}
    for shard in shards:
        wanted = values.get("modalities", ())  # not yet validated
        seen = choose_modalities(shard, wanted if isinstance(wanted, Sequence) else ())
        fitting = fitting_preset(shard.preset, seen)
        if preset == RECOMMENDED:
            if not about.is_generative:
                raise UsageError(f"the preset {preset} has nothing for {model}", f"presets: {', '.join(PRESETS)}")
            start = preset_values(fitting, model) | recommended(model, len(seen))
        else:
            start = preset_values(preset or fitting, model)
        if shard.train.labelled is not None:
            start["labels"] = "shard"
        base = {**start, **values, "model": model, "data": shard.dataset, "digest": shard.digest, "split": shard.split}
        if isinstance(base["networks"], Mapping):
            for unknown in base["networks"].keys() - start["networks"].keys():
                raise UsageError(f"{model} has no network '{unknown}'", f"its networks: {', '.join(start['networks'])}")
            base["networks"] = start["networks"] | base["networks"]
        if isinstance(base.get("cotraining"), Mapping):
            base["cotraining"] = start.get("cotraining", {}) | base["cotraining"]
        for seed, alpha, beta in itertools.product(seeds, alphas or (None,), betas or (None,)):
            own = {"seed": seed, "alpha": alpha, "beta": beta}
            jobs.append(Job(build(base | {key: value for key, value in own.items() if value is not None}), shard))
        _check_beyond(jobs[-1].settings, len(seen))
    if alphas and not about.is_generative:
        raise UsageError(f"{model} has no alpha: it maximises no bound")
    if betas and not about.has_beta:
        others = [other.name for other in cards() if other.has_beta]
        raise UsageError(
            f"{model} has no beta: it has no single-modality encoders", f"models with beta: {', '.join(others)}"
        )
    if limit is not None:
        bounded = choose_windows(limit, [job.settings for job in jobs], [job.shard for job in jobs], stack)
        jobs = [Job(settings, job.shard) for settings, job in zip(bounded, jobs, strict=True)]
    return jobs


def _check_accepted(about: ModelCard, values: Mapping[str, Any]) -> None:
    """
    Raises:
        UsageError: the model has no such setting, so that it would change nothing.
    """
    if about.accepts is None:
        return
    group = values.get("cotraining")
    given = [*values, *(f"cotraining.{name}" for name in (group if isinstance(group, Mapping) else ()))]
    for name in sorted(set(given) - about.accepts):
        group_prefix = name.rpartition(".")[0]
        known = sorted(own for own in about.accepts if own.rpartition(".")[0] == group_prefix)
        raise UsageError(f"{about.name} has no setting '{name}'", f"its settings: {', '.join(known)}")


def _check_beyond(settings: Settings, modalities: int) -> None:
    asked = settings.beyond()
    terms = ("mean_alpha", "partial_alpha", "consistency", "smoothness", "information", "agreement")
    if "onset" in asked and not any(name in asked for name in terms):
        raise UsageError("onset says when terms beyond the paper join, and there is none", f"one of {', '.join(terms)}")
    for name in terms:
        if name in asked and not settings.learns_labels:
            raise UsageError(f"{settings.model} has no classifier, so it cannot take {name}")
        if name in asked and settings.objective == "classifier":
            raise UsageError(f"{name} is no part of a classifier's training alone", "leave one of the two out")
    for name in ("partial_alpha", "consistency", "agreement"):
        if name in asked and modalities < 2:
            raise UsageError(f"{name} needs two modalities, and {settings.model} is to see one")


def folders_of(jobs: Sequence[Job], chosen: Path | None, runs: Path) -> list[Path]:
    """Where each job's run lies: `chosen` itself for a single job, else under its own name in `chosen` or `runs`."""
    if chosen is not None and len(jobs) == 1:
        return [chosen]
    return [(chosen or runs) / job.settings.name() for job in jobs]
