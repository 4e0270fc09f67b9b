"""What came of some runs: means over replicas."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.settings.presets import BEST, best
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

MEANS = {
    "none": "all given",
    "zeros": "zeros",
    "iterative": "iterative sampling",
    "encoders": "encoders",
    "views": "own classifiers",
}

TITLES = {
    "jmvae": "JMVAE",
    "jmvae-kl": "JMVAE-kl",
    "m2": "M2",
    "sdgm": "SDGM",
    "ssmvae": "SS-MVAE",
    "sshmvae": "SS-HMVAE",
    "sshmvae-kl": "SS-HMVAE-kl",
    "ct-svm": "CT+SVM",
    "cotraining": "co-training",
}


@dataclass(frozen=True)
class Row:
    """A line of a result table: one way to classify, over the replicas of one setting.

    Attributes:
        setting: what tells this setting from the others in the table; empty where there is one.
        given: the modalities given, `x+w`.
        means: what stands in for the missing ones.
        accuracy, accuracy_std: mean and standard deviation over replicas, in per cent; the latter None for one replica.
        nll: mean, in nats.
        ece: mean, in [0, 1].
        replicas: how many.
    """

    setting: str
    given: str
    means: str
    accuracy: float
    accuracy_std: float | None
    nll: float
    ece: float
    replicas: int


@dataclass(frozen=True)
class ResultTable:
    """Rows, and what all their settings have in common."""

    common: str
    rows: tuple[Row, ...]


def description(settings: Settings, titled: bool = False) -> list[str]:
    """What one says of a run to tell it from others, whatever its seed and split.

    Args:
        titled: whether the model goes by its name in the paper, not by that on the command line.
    """
    model = TITLES[settings.model] if titled else settings.model
    parts = [model, settings.data, f"{settings.labels} labels", f"{settings.epochs} {settings.turns}"]
    if settings.modalities:
        parts.insert(1, f"on {'+'.join(settings.modalities)}")
    if settings.objective != "bound":
        parts.append(f"{settings.objective} alone")
    if settings.alpha != 1:
        parts.append(f"alpha {settings.alpha:g}")
    if settings.has_encoders:
        parts.append(f"beta {settings.beta:g}")
    return parts + _beyond(settings)


def _beyond(settings: Settings) -> list[str]:
    """What goes beyond the paper; where all of `best` is there, its name and what differs from it."""
    own = settings.beyond()
    for modalities in (2, 1):
        preset = best(settings.model, modalities)
        if preset.keys() <= own.keys():
            more = {name: value for name, value in own.items() if preset.get(name) != value}
            return [f"preset {BEST}", *_values(more)]
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


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in seed and split alone, together, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.model_dump_json(exclude={"seed", "split", "digest"}), []).append(run)
    return list(groups.values())


def table(runs: Sequence[Run], titled: bool = False) -> ResultTable:
    """Finished runs, grouped by all settings but seed and split, a line for each way to classify.

    Args:
        titled: as for `description`.

    Raises:
        DataError: a run is not done.
    """
    groups = grouped(runs)
    common, labels = names([group[0].settings for group in groups], titled)
    rows = []
    for group, label in zip(groups, labels, strict=True):
        results = [run.result() for run in group]
        for scores in zip(*(result.scores for result in results), strict=True):
            accuracies = [100 * score.accuracy for score in scores]
            rows.append(
                Row(
                    setting=label,
                    given=scores[0].given,
                    means=MEANS[scores[0].means],
                    accuracy=statistics.fmean(accuracies),
                    accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                    nll=statistics.fmean(score.nll for score in scores),
                    ece=statistics.fmean(score.ece for score in scores),
                    replicas=len(scores),
                )
            )
    return ResultTable(common, tuple(rows))
