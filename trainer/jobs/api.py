"""Training and evaluation from Python, one call each: what `mmssl train` and `mmssl evaluate` do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Shard
from trainer.evaluation.metrics import Evaluation
from trainer.jobs.plan import plan
from trainer.jobs.train import evaluate_run, train_all
from trainer.training.progress import Silent
from trainer.training.run_folder import Run


def train(
    model: str,
    shard: Shard | Path | str,
    *,
    out: Path | str = Path("workspace/runs"),
    preset: str | None = None,
    seeds: Sequence[int] = (),
    device: str = "auto",
    **settings: Any,
) -> list[Run]:
    """Trains and evaluates a model on a shard, one run per seed; finished runs are left as they are.

    Args:
        model: the model's name, such as `sshmvae-kl`.
        out: the folder in which each run gets a folder of its own.
        seeds: one run each; none for the setting `seed`, which is 0 unless it is given.
        preset: settings to start from; None for the paper's on its own data, and otherwise the recommended ones.
        device: auto, cpu or cuda.
        settings: any setting by name (docs/reference/settings.md): `labels=100`, `epochs=20`.

    Raises:
        UsageError: a setting is unknown or invalid, or a seed is given twice.
        DataError: the shard is damaged, or a run's folder holds something else.
        TrainingError: training cannot continue.
    """
    opened = shard if isinstance(shard, Shard) else Shard.open(shard)
    twice = next((seed for seed in seeds if list(seeds).count(seed) > 1), None)
    if twice is not None:
        raise UsageError(f"seeds names {twice} twice", "give every run a seed of its own: seeds=range(5)")
    jobs = plan(model, [opened], preset=preset, values=settings, seeds=seeds)
    return train_all(jobs, [Path(out) / job.settings.name() for job in jobs], choose_device(device), Silent())


def evaluate(
    run: Run | Path | str,
    *,
    device: str = "auto",
    iterations: int | None = None,
    samples: int | None = None,
    shard: Path | str | None = None,
) -> Evaluation:
    """Evaluates a finished run again on its test set.

    Args:
        shard: the run's shard, or a folder that holds it, if it is neither where it was nor in the run's workspace.
        iterations: iterations of iterative sampling; None for the run's own setting.
        samples: samples of the latent variables, 0 for their mean; None for the run's own setting.

    Raises:
        DataError: the run is not done, or its shard is missing or not the one it was trained on.
    """
    opened = run if isinstance(run, Run) else Run.open(Path(run), [] if shard is None else [Path(shard)])
    return evaluate_run(opened, choose_device(device), iterations=iterations, samples=samples)
