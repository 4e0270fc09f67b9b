"""Many runs at once: what can be stacked is trained in one pass, what is done is left alone, the rest goes on."""

import difflib
import itertools
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import DataError, TrainingError, UsageError
from pipeline.runtime.files import sweep
from pipeline.runtime.leases import claim, forget_dead
from pipeline.runtime.versions import versions
from pipeline.shards.shard import Shard
from trainer.baselines import RIVALS, check_values, check_views, evaluate_rival, train_rival
from trainer.data.memory_limit import within
from trainer.data.resident import Data, choose_modalities, leaves_unlabelled
from trainer.data.streaming import load
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.models import MODELS
from trainer.nn.rng import Noise
from trainer.settings.presets import BEST, PRESETS, best, preset_for
from trainer.settings.run_settings import ModelName, PresetName, Settings, build
from trainer.training.loop import Progress, train
from trainer.training.run_folder import PROPOSED, Checkpoint, Run
from trainer.training.step import LOWER_RATE, make_model, precision

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One replica to train: its settings and its shard."""

    settings: Settings
    shard: Shard


def check_model(name: str) -> ModelName:
    """The name of a model, as one.

    Raises:
        UsageError: there is no such model.
    """
    known = [*MODELS, *RIVALS]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"there is no model '{name}'" + (f"; did you mean {near[0]}?" if near else ""),
            f"models: {', '.join(known)}",
        )
    return cast(ModelName, name)


def check_preset(name: str) -> PresetName:
    """
    Raises:
        UsageError: there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset '{name}'", f"presets: {', '.join([*PRESETS, BEST])}")
    return cast(PresetName, name)


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
        preset: the one that fits the shard where None, `best` for ours on top of it; where the shard marks labelled
            examples, those are taken.
        values: settings that replace the preset's; a `memory_limit` among them becomes the window it leaves room for.
        stack: how many replicas will be trained in one pass, which share the memory limit.

    Raises:
        UsageError: a setting that cannot be.
    """
    model = check_model(model)
    check_values(model, values)
    jobs = []
    limit, values = values.get("memory_limit"), {key: values[key] for key in values if key != "memory_limit"}
    for shard in shards:
        wanted = values.get("modalities", ())  # not yet validated
        seen = choose_modalities(shard, wanted if isinstance(wanted, Sequence) else ())
        fitting = preset_for(shard.dataset, {m.distribution for m in seen})
        if preset == BEST:
            if model in RIVALS:
                raise UsageError(f"the preset best has nothing for {model}", f"presets: {', '.join(PRESETS)}")
            start = PRESETS[fitting](model) | best(model, len(seen))
        else:
            start = PRESETS[check_preset(preset or fitting)](model)
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
    if alphas and model in RIVALS:
        raise UsageError(f"{model} has no alpha: it maximises no bound")
    if betas and not jobs[0].settings.has_encoders:
        raise UsageError(
            f"{model} has no beta: it has no single-modality encoders", "models with beta: jmvae-kl, sshmvae-kl"
        )
    if limit is not None:
        bounded = within(limit, [job.settings for job in jobs], [job.shard for job in jobs], stack)
        jobs = [Job(settings, job.shard) for settings, job in zip(bounded, jobs, strict=True)]
    return jobs


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


def folders(jobs: Sequence[Job], chosen: Path | None, runs: Path) -> list[Path]:
    """Where each job's run lies: `chosen` itself for a single job, else under its own name in `chosen` or `runs`."""
    if chosen is not None and len(jobs) == 1:
        return [chosen]
    return [(chosen or runs) / job.settings.name() for job in jobs]


def train_all(
    jobs: Sequence[Job], folders: Sequence[Path], device: torch.device, progress: Progress, stack: int = 16
) -> list[Run]:
    """Trains and evaluates every job that is not done yet, `stack` replicas at most in one pass.

    Args:
        folders: one a job.

    Returns:
        The runs, all done, in the order of the jobs.

    Raises:
        ClaimedError: another process is training one of them.
        MmsslError: whatever stops one stack stops all; what was saved stays.
    """
    runs = [Run.prepare(folder, job.settings) for folder, job in zip(folders, jobs, strict=True)]
    shards = {id(run): job.shard for run, job in zip(runs, jobs, strict=True)}
    open_runs = [run for run in runs if not run.done]
    tidy(folders)
    if len(open_runs) < len(runs):
        _log.info("%d of %d runs are done already", len(runs) - len(open_runs), len(runs))
    with claim(*(run.folder for run in open_runs), folders=True) as held:
        for run in open_runs:
            run.claim = held
        settle([run for run in open_runs if not run.done])
        _train_open([run for run in open_runs if not run.done], shards, device, progress, stack)
    return runs


def tidy(folders: Iterable[Path]) -> None:
    """Removes what killed processes of this machine left in folders of runs or tables, also where all is done."""
    for folder in folders:
        forget_dead(folder)
        sweep(folder)


def settle(runs: Sequence[Run]) -> None:
    """Ends what stacks were at when their process was killed: all of a stack get their new checkpoint, or none does,
    and all are done where all are evaluated.

    Args:
        runs: claimed, and not done.
    """
    by_name = {run.settings.fingerprint(): run for run in runs}

    def stack(checkpoint: Checkpoint | None) -> list[Run]:
        names = checkpoint.values.get("stack", []) if checkpoint else []
        return [by_name[name] for name in names if name in by_name]

    evaluated = [run for run in runs if run.evaluated]
    for run in [one for one in evaluated if all(mate.evaluated for mate in stack(one.read_checkpoint()))]:
        run.conclude()

    proposals = {run: own for run in runs if (own := run.read_checkpoint(PROPOSED)) is not None}

    def came_to(run: Run, step: int) -> bool:
        found = (proposals.get(run), run.read_checkpoint())
        return any(own is not None and own.values["step"] == step for own in found)

    agreed = {run for run, own in proposals.items() if all(came_to(mate, own.values["step"]) for mate in stack(own))}
    for run in proposals:
        if run in agreed:
            run.accept_checkpoint()
        else:
            run.discard_proposal()


def _train_open(
    open_runs: Sequence[Run], shards: Mapping[int, Shard], device: torch.device, progress: Progress, stack: int
) -> None:
    groups: dict[tuple[str, int, int, bool], list[Run]] = {}
    for run in open_runs:
        if run.settings.model in RIVALS:
            _train_rival(run, shards[id(run)], device, progress)
            continue
        checkpoint = run.read_checkpoint()
        far = (int(checkpoint.values["step"]), int(checkpoint.values["per_epoch"])) if checkpoint else (0, 0)
        key = (run.settings.stack_key(), *far, leaves_unlabelled(run.settings, shards[id(run)]))
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        for start in range(0, len(group), stack):
            together = group[start : start + stack]
            _train_stack(together, [shards[id(run)] for run in together], device, progress)


def _train_stack(runs: Sequence[Run], shards: Sequence[Shard], device: torch.device, progress: Progress) -> None:
    begun, clock = datetime.now(UTC), time.monotonic()
    data = load([run.settings for run in runs], shards, device)
    for run, own in zip(runs, data.examples, strict=True):
        run.begin(own.labelled_ids)
    step = train(runs, data, device, progress)
    settings = runs[0].settings
    with precision(settings, device), step.averaged():
        results = evaluate(
            step.model,
            step.noise,
            data,
            iterations=settings.iterations,
            samples=settings.samples,
            bound=settings.objective == "bound",
        )
        weights = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    for run, result in zip(runs, results, strict=True):
        _raise_if_not_finite(run, result)
    for r, (run, shard) in enumerate(zip(runs, shards, strict=True)):
        mine = {name: tensor[r] for name, tensor in weights.items()}
        how = {"stacked with": len(runs) - 1, "steps an epoch": step.per_epoch}
        _keep(run, mine, results[r], environment(device) | {"shard": str(shard.path.resolve())} | how, begun, clock)
    for run in runs:
        run.conclude()


def _train_rival(run: Run, shard: Shard, device: torch.device, progress: Progress) -> None:
    begun, clock = datetime.now(UTC), time.monotonic()
    data = load([run.settings], [shard], device)
    check_views(run.settings, data)
    run.begin(data.examples[0].labelled_ids)
    with precision(run.settings, device):
        weights, result = train_rival(run, data, device, progress)
    _raise_if_not_finite(run, result)
    how = environment(device) | versions("scikit-learn") | {"shard": str(shard.path.resolve())}
    _keep(run, weights, result, how, begun, clock)
    run.conclude()


def _raise_if_not_finite(run: Run, result: Evaluation) -> None:
    if not all(map(math.isfinite, (result.elbo or 0.0, *(score.nll for score in result.scores)))):
        raise TrainingError(f"the trained model of {run.folder} gives scores that are not finite", LOWER_RATE)


def _keep(
    run: Run, weights: dict[str, Tensor], result: Evaluation, how: Mapping[str, Any], begun: datetime, clock: float
) -> None:
    run.write_weights(weights)
    seconds = round(time.monotonic() - clock, 1)
    run.write_provenance({**how, "begun": begun.isoformat(timespec="seconds"), "seconds of the last sitting": seconds})
    run.write_evaluation(result)


def evaluate_run(
    run: Run, device: torch.device, *, iterations: int | None = None, samples: int | None = None
) -> Evaluation:
    """A finished run's scores, computed anew from its weights.

    Raises:
        DataError: the run is not done, or its shard is missing or not the one it was trained on.
    """
    shard = shard_of(run)
    data = load([run.settings], [shard], device)
    settings = run.settings
    if settings.model in RIVALS:
        with precision(settings, device):
            return evaluate_rival(run, data, device)
    model, noise = load_model(run, data, device)
    with precision(settings, device):
        (result,) = evaluate(
            model,
            noise,
            data,
            iterations=iterations or settings.iterations,
            samples=settings.samples if samples is None else samples,
            bound=settings.objective == "bound",
        )
    return result


def shard_of(run: Run) -> Shard:
    """The shard that a finished run was trained on.

    Raises:
        DataError: the run is not done, or its shard is missing, damaged or another one.
    """
    provenance = run.provenance()
    if not isinstance(provenance.get("shard"), str):
        raise DataError(f"{run.folder / 'provenance.json'} does not say which shard the run was trained on")
    path = Path(provenance["shard"])
    shard = Shard.open(path)
    if shard.digest != run.settings.digest:
        raise DataError(f"{path} is not the shard that {run.folder} was trained on: its content differs")
    return shard


def load_model(run: Run, data: Data, device: torch.device) -> tuple[nn.Module, Noise]:
    """A finished run's model, a stack of one.

    Raises:
        UsageError: it is no model of `trainer.models`, but one of the co-trained systems.
        DataError: the weights are damaged, or not of these settings.
    """
    if run.settings.model in RIVALS:
        raise UsageError(f"{run.folder} holds {run.settings.model}, which has no latent variable and generates nothing")
    model, noise = make_model([run.settings], data, device)
    weights = {name: tensor.unsqueeze(0) for name, tensor in run.read_weights().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"the weights in {run.folder} do not fit its settings: {str(error).splitlines()[0]}") from None
    return model, noise


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("there is no CUDA device here", "use --device cpu, or --device auto")
        return torch.device("cuda")
    raise UsageError(f"there is no device '{name}'", "devices: auto, cpu, cuda")


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on besides its settings."""
    name = os.path.basename(sys.argv[0])
    return {
        **versions("numpy", "torch"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "command": " ".join(["mmssl" if name == "cli.py" else name, *sys.argv[1:]]),  # `python -m cli` is the same
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
