"""Settings in words: what several runs have in common, and what distinguishes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.shards.schema import NEVER
from trainer.models.registry import card
from trainer.settings.names import RECOMMENDED
from trainer.settings.recommended import terms
from trainer.settings.run_settings import Settings


def description(settings: Settings, titled: bool = False) -> list[str]:
    """The phrases that describe a run, without its seed and split.

    Args:
        titled: whether the model is called by its name in the paper instead of its name on the command line.
    """
    model = card(settings.model).title if titled else settings.model
    parts = [
        model,
        settings.data,
        _labels(settings),
        f"{settings.epochs} {settings.turns if settings.epochs > 1 else settings.turns[:-1]}",
    ]
    if settings.modalities:
        parts.insert(1, f"on {'+'.join(settings.modalities)}")
    if settings.objective != "bound":
        parts.append(f"{settings.objective} alone")
    usual = _recommended_terms(settings)
    if settings.alpha != usual.get("alpha", 1):
        parts.append(f"alpha {settings.alpha:g}")
    if settings.has_beta:
        parts.append(f"beta {settings.beta:g}")
    if usual:
        parts.append(RECOMMENDED)
    return parts + _values({name: value for name, value in settings.beyond().items() if usual.get(name) != value})


def _labels(settings: Settings) -> str:
    """`20 labels and 40 asked for`, `40 labels asked for`."""
    given = sum(label != NEVER for _, label in settings.answers)
    if not given:
        return f"{settings.labels} labels"
    return f"{given} labels asked for" if settings.labels == 0 else f"{settings.labels} labels and {given} asked for"


def _recommended_terms(settings: Settings) -> dict[str, Any]:
    """The recommended terms, if a run has all of them, whatever their values; otherwise none."""
    in_use = settings.beyond().keys()
    for modalities in (2, 1):
        usual = terms(settings.model, modalities)
        if usual.keys() - {"alpha"} <= in_use:
            return usual
    return {}


def _values(settings: Mapping[str, object]) -> list[str]:
    return [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()]


def names(settings: Sequence[Settings], titled: bool = False) -> tuple[str, list[str]]:
    """What several settings have in common, and a name for each made from the rest.

    Equal names are extended by the settings that differ, or else numbered.
    """
    descriptions = [description(each, titled) for each in settings]
    common = [phrase for phrase in descriptions[0] if all(phrase in phrases for phrases in descriptions)]
    labels = [", ".join(phrase for phrase in phrases if phrase not in common) for phrases in descriptions]
    for label in {label for label in labels if labels.count(label) > 1}:
        alike = [k for k, other in enumerate(labels) if other == label]
        for k, difference in zip(alike, _differing_values([settings[k] for k in alike]), strict=True):
            labels[k] = ", ".join(filter(None, (label, difference)))
    alike_still = {label for label in labels if labels.count(label) > 1}
    numbered = [f"{label} #{k}".strip() if label in alike_still else label for k, label in enumerate(labels, 1)]
    return ", ".join(common), numbered


def _differing_values(settings: Sequence[Settings]) -> list[str]:
    """For each of the settings, its plain values that are not equal in all; seed, split and shard are left out."""
    dumps = [each.model_dump(exclude={"seed", "split", "digest"}) for each in settings]
    differing = [
        key
        for key, first in dumps[0].items()
        if isinstance(first, int | float | str | None) and any(values[key] != first for values in dumps)
    ]
    return [
        ", ".join(f"{key.replace('_', ' ')} {'none' if values[key] is None else values[key]}" for key in differing)
        for values in dumps
    ]
