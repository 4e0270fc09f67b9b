"""What came of some runs: means over replicas, and curves."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import atomic_path
from trainer.runs import Run
from trainer.settings import Settings

MEANS = {"none": "", "zeros": "zeros", "iterative": "iterative sampling", "encoders": "its own encoders"}


@dataclass(frozen=True)
class Row:
    """A line of a result table: one way to classify, over the replicas of one setting.

    Attributes:
        setting: what tells this setting from the others in the table; empty where there is one.
        given: the modalities given, `x+w`.
        means: what stands in for the missing ones; empty where none is.
        accuracy, accuracy_std: mean and standard deviation over replicas, in per cent; the latter None for one replica.
        nll: mean, in nats. ece: mean, in [0, 1].
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


def label(settings: Settings) -> str:
    """What a table calls runs that differ in seed and split alone."""
    parts = [settings.model, *settings.modalities, settings.data, f"{settings.labels} labels"]
    if settings.alpha != 1:
        parts.append(f"alpha {settings.alpha:g}")
    if settings.has_encoders:
        parts.append(f"beta {settings.beta:g}")
    return ", ".join([*parts, f"{settings.epochs} epochs"])


def table(runs: Sequence[Run]) -> list[Row]:
    """Finished runs, grouped by all settings but seed and split, a line for each way to classify.

    Raises:
        DataError: a run is not done.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        alike = run.settings.model_dump_json(exclude={"seed", "split", "digest"})
        groups.setdefault(alike, []).append(run)
    rows = []
    for group in groups.values():
        results = [run.result() for run in group]
        for scores in zip(*(result.scores for result in results), strict=True):
            accuracies = [100 * score.accuracy for score in scores]
            rows.append(
                Row(
                    setting=label(group[0].settings),
                    given=scores[0].given,
                    means=MEANS[scores[0].means],
                    accuracy=statistics.fmean(accuracies),
                    accuracy_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                    nll=statistics.fmean(score.nll for score in scores),
                    ece=statistics.fmean(score.ece for score in scores),
                    replicas=len(scores),
                )
            )
    return rows


def curves(runs: Sequence[Run], path: Path) -> None:
    """Draws accuracy against epochs: a panel for each subset of modalities, a line for each setting's mean.

    Raises:
        DataError: none of the runs has an epoch behind it.
        StorageError: the picture cannot be written.
    """
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    lines: dict[str, dict[str, list[dict[str, float]]]] = {}
    for run in runs:
        for row in run.metrics():
            for key, value in row.items():
                if key.startswith("accuracy "):
                    points = lines.setdefault(key.removeprefix("accuracy "), {}).setdefault(label(run.settings), [])
                    points.append({"epoch": float(row["epoch"]), "accuracy": 100 * float(value)})
    if not lines:
        raise DataError(
            "none of these runs has a finished epoch, so there is no curve", "train one: mmssl train sshmvae-kl"
        )
    names = sorted(lines, key=lambda name: (name.count("+"), name))
    figure = Figure(figsize=(4.2 * len(names), 3.8), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, given in zip(panels, names, strict=True):
        for setting, points in lines[given].items():
            epochs = sorted({point["epoch"] for point in points})
            means = [statistics.fmean(p["accuracy"] for p in points if p["epoch"] == epoch) for epoch in epochs]
            panel.plot(epochs, means, label=setting, linewidth=1.6, marker="o" if len(epochs) == 1 else None)
        panel.set_title(f"given {given}")
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    handles: dict[str, Artist] = {}
    for panel in panels:
        handles |= {str(line.get_label()): line for line in panel.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside lower center", fontsize="small", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
