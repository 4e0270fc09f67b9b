"""Settings in words: what is common to several runs, and what tells them apart."""

from collections.abc import Mapping, Sequence

from trainer.models.registry import card
from trainer.settings.names import RECOMMENDED
from trainer.settings.presets import recommended
from trainer.settings.run_settings import Settings


def description(settings: Settings, titled: bool = False) -> list[str]:
    """What one says of a run to tell it from others, whatever its seed and split.

    Args:
        titled: whether the model goes by its name in the paper, not by that on the command line.
    """
    model = card(settings.model).title if titled else settings.model
    parts = [
        model,
        settings.data,
        f"{settings.labels} labels",
        f"{settings.epochs} {settings.turns if settings.epochs > 1 else settings.turns[:-1]}",
    ]
    if settings.modalities:
        parts.insert(1, f"on {'+'.join(settings.modalities)}")
    if settings.objective != "bound":
        parts.append(f"{settings.objective} alone")
    if settings.alpha != 1:
        parts.append(f"alpha {settings.alpha:g}")
    if settings.has_beta:
        parts.append(f"beta {settings.beta:g}")
    return parts + _beyond(settings)


def _beyond(settings: Settings) -> list[str]:
    """What goes beyond the paper; where all of `best` is there, its name and what differs from it."""
    own = settings.beyond()
    for modalities in (2, 1):
        preset = recommended(settings.model, modalities)
        if preset.keys() <= own.keys():
            more = {name: value for name, value in own.items() if preset.get(name) != value}
            return [f"preset {RECOMMENDED}", *_values(more)]
    return _values(own)


def _values(settings: Mapping[str, object]) -> list[str]:
    return [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()]


def names(settings: Sequence[Settings], titled: bool = False) -> tuple[str, list[str]]:
    """What is common to some settings, and what each is called besides.

    Settings that would look alike are told apart by what differs, or by a number.
    """
    parts = [description(own, titled) for own in settings]
    common = [part for part in parts[0] if all(part in own for own in parts)]
    rest = [", ".join(part for part in own if part not in common) for own in parts]
    for name in {name for name in rest if rest.count(name) > 1}:
        alike = [k for k, own in enumerate(rest) if own == name]
        for k, beside in zip(alike, _apart([settings[k] for k in alike]), strict=True):
            rest[k] = ", ".join(filter(None, (name, beside)))
    for k, name in enumerate(rest):
        if rest.count(name) > 1:
            rest[k] = f"{name} #{k + 1}".strip()
    return ", ".join(common), rest


def _apart(settings: Sequence[Settings]) -> list[str]:
    """In which of their plain values some settings differ, those of each; nothing of seed, split and shard."""
    values = [own.model_dump(exclude={"seed", "split", "digest"}) for own in settings]
    differing = [
        key
        for key, first in values[0].items()
        if isinstance(first, int | float | str | None) and any(own[key] != first for own in values)
    ]
    return [
        ", ".join(f"{key.replace('_', ' ')} {'none' if own[key] is None else own[key]}" for key in differing)
        for own in values
    ]
