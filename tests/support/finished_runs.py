"""Runs whose folders hold what a finished run's do, without training: numbers chosen by the test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.evaluation.metrics import Evaluation, Score
from trainer.settings.presets import preset_values
from trainer.settings.run_settings import build
from trainer.training.run_folder import Run


def finished(
    root: Path,
    model: str = "ssmvae",
    *,
    accuracies: Sequence[dict[str, float]] = ({"x": 0.5, "w": 0.4, "x+w": 0.9},),
    done: bool = True,
    completions: Sequence[str] = ("zeros",),
    labelled: int | None = None,
    **settings: Any,
) -> Run:
    """A run with these accuracies (shares) after each epoch, the last one being its result."""
    values = {"model": model, "data": "hm-mnist", "epochs": len(accuracies), **settings}
    built = build(preset_values("mnist", model) | values)
    run = Run(root / built.name(), built)
    count = labelled if labelled is not None else built.labels
    run.begin([f"train-{k}" for k in range(count if isinstance(count, int) else 0)])
    run.write_metrics(
        [
            {"epoch": epoch, "J": -1.0, **{f"accuracy {given}": share for given, share in shares.items()}}
            for epoch, shares in enumerate(accuracies, 1)
        ]
    )
    if done:
        run.write_provenance({"device": "a test's", "shard": str(root / "absent.h5")})
        scores = [
            Score(given, how, share - 0.1 * k, 0.5, 0.1, 100)
            for given, share in accuracies[-1].items()
            for k, how in enumerate(("none",) if "+" in given else completions)
        ]
        run.finish(Evaluation(tuple(scores), -100.0))
    return run
