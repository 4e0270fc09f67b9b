"""Turns a model, shards and options into complete settings, one job per replica."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Modality, Shard
from trainer.data.answers import answered
from trainer.data.memory_limit import choose_windows
from trainer.data.selection import choose_modalities
from trainer.inference.network import check_builds
from trainer.models.card import ModelCard
from trainer.models.registry import card, cards
from trainer.settings.names import PAPER, RECOMMENDED
from trainer.settings.presets import PAPER_DATA, PRESETS, fitting_preset, preset_values
from trainer.settings.recommended import recommended
from trainer.settings.run_settings import Settings, build

_IDENTITY = ("model", "data", "digest", "split")  # the settings that the model and the shard decide
_OF_ENCODERS = ("beta", "pooling", "joint_encoder")  # the settings of models with single-modality encoders


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
    seeds: Sequence[int] = (),
    alphas: Sequence[float] = (),
    betas: Sequence[float] = (),
    stack: int = 16,
) -> list[Job]:
    """Plans every combination of shard, seed, alpha and beta, as complete settings.

    Args:
        shards: one, or one per split.
        preset: settings to start from; None for the paper's on its own data and for systems that have no recommended
            ones, otherwise the recommended ones. If the shard marks labelled examples, or has rows whose label is
            unknown, its labels are the labelled ones.
        values: settings that replace the preset's; a `memory_limit` among them becomes the window it leaves room for.
            What they say of the model, the data and the split must be true of these.
        seeds, alphas, betas: one or several, in place of that setting; none for the one in `values`.
        stack: how many replicas will be trained in one pass; they share the memory limit.

    Raises:
        UsageError: a setting is invalid.
    """
    model_card = card(model)
    if isinstance(names := values.get("modalities"), str):  # as the option takes them: x,w
        values = {**values, "modalities": tuple(name.strip() for name in names.split(","))}
    identity = {name: values[name] for name in _IDENTITY if name in values}
    values = {name: value for name, value in values.items() if name not in _IDENTITY}
    _check_accepted(model_card, values)
    jobs = []
    limit, values = values.get("memory_limit"), {key: values[key] for key in values if key != "memory_limit"}
    if limit is not None and "window" in values:
        raise UsageError("memory_limit sets the window, so the two exclude each other", "leave one of them out")
    if alphas and not model_card.is_generative:
        raise UsageError(f"{model} has no alpha: it does not maximise a bound")
    if betas and not model_card.has_beta:
        raise _no_encoders(model, "beta")
    built: set[str] = set()
    for shard in shards:
        _check_identity(identity, model, shard)
        wanted = values.get("modalities", ())  # not yet validated
        is_list = isinstance(wanted, Sequence) and all(isinstance(name, str) for name in wanted)
        seen = choose_modalities(shard, wanted if is_list else ())
        start = _start(model_card, shard, seen, preset, values)
        start |= _labels(shard)
        base = {**start, **values, "model": model, "data": shard.dataset, "digest": shard.digest, "split": shard.split}
        if isinstance(base["networks"], Mapping):
            for unknown in base["networks"].keys() - start["networks"].keys():
                raise UsageError(f"{model} has no network '{unknown}'", f"its networks: {', '.join(start['networks'])}")
            base["networks"] = start["networks"] | base["networks"]
        if isinstance(base.get("cotraining"), Mapping):
            base["cotraining"] = start.get("cotraining", {}) | base["cotraining"]
        for seed, alpha, beta in itertools.product(seeds or (None,), alphas or (None,), betas or (None,)):
            varied = {"seed": seed, "alpha": alpha, "beta": beta}
            settings = build(base | {key: value for key, value in varied.items() if value is not None})
            jobs.append(Job(settings, answered(shard, settings)))
        settings, shard = jobs[-1].settings, jobs[-1].shard
        _check_beyond(settings, len(seen))
        _check_effect(settings, values)
        settings.check_classes(len(shard.classes))
        if model_card.is_generative and (key := f"{settings.stack_key()} {seen} {len(shard.classes)}") not in built:
            check_builds(settings, seen, len(shard.classes))
            built.add(key)
    if limit is not None:
        bounded = choose_windows(limit, [job.settings for job in jobs], [job.shard for job in jobs], stack)
        jobs = [Job(settings, job.shard) for settings, job in zip(bounded, jobs, strict=True)]
    return jobs


def _check_identity(given: Mapping[str, Any], model: str, shard: Shard) -> None:
    """Refuses settings of another model or other data: a settings file of a run names them.

    Raises:
        UsageError: one is not of this model and this shard.
    """
    actual = {"model": model, "data": shard.dataset, "digest": shard.digest, "split": shard.split}
    for name, value in given.items():
        if value != actual[name] and not (name == "digest" and value == ""):
            raise UsageError(
                f"the settings say {name} {str(value)[:80]!r}, but {shard.path} is trained on as {name} "
                f"{str(actual[name])[:80]!r}"
                if name != "model"
                else f"the settings are of the model {str(value)[:80]!r}, not of {model}",
                f"leave {name} out of the settings, or choose the other {'model' if name == 'model' else 'data'}",
            )


def _check_effect(settings: Settings, values: Mapping[str, Any]) -> None:
    """Refuses values that the model would not use.

    Raises:
        UsageError: there is one, and it is not the default.
    """
    fields = Settings.model_fields
    for name in () if settings.has_beta else _OF_ENCODERS:
        if name in values and getattr(settings, name) != fields[name].default:
            raise _no_encoders(settings.model, name)


def _no_encoders(model: str, name: str) -> UsageError:
    others = [other.name for other in cards() if other.has_beta]
    return UsageError(
        f"{model} has no {name}: it has no single-modality encoders", f"models with {name}: {', '.join(others)}"
    )


def _start(
    model_card: ModelCard, shard: Shard, seen: tuple[Modality, ...], preset: str | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values to start from; `values` replace them later, and decide here whether there can be terms of ours.

    Raises:
        UsageError: there is no such preset, or it has no settings for the model.
    """
    has_ours = model_card.is_generative and values.get("objective", "bound") == "bound"
    if preset is None:
        preset = RECOMMENDED if has_ours and shard.dataset not in PAPER_DATA else PAPER
    if preset == RECOMMENDED and not has_ours:
        what = "a classifier alone" if model_card.is_generative else model_card.name
        raise UsageError(f"the preset {preset} has no settings for {what}", f"presets: {', '.join((PAPER, *PRESETS))}")
    if preset not in (PAPER, RECOMMENDED):
        return preset_values(preset, model_card.name)
    paper = preset_values(fitting_preset(shard.preset, seen), model_card.name)
    if preset == PAPER:
        return paper
    complete = float(np.logical_and.reduce([shard.train.has(m.name) for m in seen]).mean())
    return paper | recommended(model_card.name, shard.train.rows, seen, complete)


def _labels(shard: Shard) -> dict[str, Any]:
    """Which labels a shard itself suggests: those that it marks, or all that are known if some are not."""
    if shard.train.labelled is not None:
        return {"labels": "shard"}
    return {"labels": "all"} if (shard.train.labels < 0).any() else {}


def _check_accepted(model_card: ModelCard, values: Mapping[str, Any]) -> None:
    """Refuses a setting that the model does not have, since it would have no effect.

    Raises:
        UsageError: the model has no such setting.
    """
    if model_card.accepts is None:
        return
    group = values.get("cotraining")
    given = [*values, *(f"cotraining.{name}" for name in (group if isinstance(group, Mapping) else ()))]
    for name in sorted(set(given) - model_card.accepts):
        group_prefix = name.rpartition(".")[0]
        known = sorted(other for other in model_card.accepts if other.rpartition(".")[0] == group_prefix)
        raise UsageError(f"{model_card.name} has no setting '{name}'", f"its settings: {', '.join(known)}")


def _check_beyond(settings: Settings, modalities: int) -> None:
    """Checks that the settings beyond the paper fit the model and the number of modalities.

    Raises:
        UsageError: one does not.
    """
    chosen = settings.beyond()
    late = ("consistency", "smoothness", "partial_smoothness", "information", "agreement")
    if "onset" in chosen and not any(name in chosen for name in late):
        raise UsageError(
            "onset says when the terms beyond the paper are switched on, and none is set", f"one of {', '.join(late)}"
        )
    for name in ("propagation", "mean_alpha", "partial_alpha", *late):
        if name in chosen and not settings.learns_labels:
            raise UsageError(f"{settings.model} has no classifier, so it cannot use {name}")
        if name in chosen and settings.objective == "classifier":
            raise UsageError(f"{name} has no effect when the classifier is trained alone", "leave one of the two out")
    for name in ("partial_alpha", "consistency", "partial_smoothness", "agreement"):
        if name in chosen and modalities < 2:
            raise UsageError(f"{name} needs two modalities, and {settings.model} would see only one")


def folders_of(jobs: Sequence[Job], chosen: Path | None, runs: Path) -> list[Path]:
    """Each job's run folder: `chosen` itself for a single job, otherwise a named folder in `chosen` or `runs`."""
    if chosen is not None and len(jobs) == 1:
        return [chosen]
    return [(chosen or runs) / job.settings.name() for job in jobs]
