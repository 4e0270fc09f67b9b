"""One modality of test examples made from another by a finished run.

What the model has against missing modalities (`Model.completions`) infers its latent variables from the given ones, at
the posterior's mean, and what is shown is the mean of the target's distribution:

    JMVAE, SS-HMVAE and their -kl   p(w|a) at the mean of q(a|x), q(a|x,0), or of iterative sampling's q(a|x,w) (eq. 11)
    SS-MVAE, M2                     p(w|z,y) at the mean of q(z|x,0,y), for the most probable y of q(y|x,0)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Features, Part, Shard
from trainer.data.resident import Data
from trainer.data.streaming import load
from trainer.evaluation.evaluate import completion, evaluating
from trainer.jobs.train import load_model, shard_of
from trainer.models import LatentModel, Model
from trainer.models.m2 import M2
from trainer.models.sdgm import SDGM
from trainer.models.ssmvae import SSMVAE
from trainer.nn.labels import one_hot
from trainer.nn.rng import Noise
from trainer.training.run_folder import Run
from trainer.training.step import precision

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """A finished run, loaded: its shard, and its model as a stack of one."""

    run: Run
    shard: Shard
    data: Data
    model: nn.Module
    noise: Noise


@dataclass(frozen=True)
class Made:
    """One modality of N test examples, and what a run's methods make of it from others.

    Attributes:
        given: the modalities seen, `[N, D]` each.
        target: the name of the one that is made.
        true: as it is, `[N, D]`.
        made: by method, `[N, D]`.
        rows: in the shard's test set, `[N]`.
    """

    given: Mapping[str, NDArray[np.float32]]
    target: str
    true: NDArray[np.float32]
    made: Mapping[str, NDArray[np.float32]]
    rows: NDArray[np.int64]


def load_subjects(runs: Sequence[Run], device: torch.device = CPU) -> Iterator[Subject]:
    """The runs, loaded one at a time, in an order that reads data as rarely as may be; streamed as in their training.

    Raises:
        DataError: a run is not done, or its shard is missing or another one.
    """
    shard: Shard | None = None
    data: Data | None = None
    last = ""
    for run in sorted(runs, key=_data_key):
        if shard is None or shard.digest != run.settings.digest:
            shard = shard_of(run)
        if data is None or last != _data_key(run):
            data, last = load([run.settings], [shard], device), _data_key(run)
        yield Subject(run, shard, data, *load_model(run, data, device))


def _data_key(run: Run) -> str:
    """Equal for runs that see the same examples."""
    settings = run.settings
    seen = (settings.modalities, settings.labels, settings.seed, settings.learns_labels, settings.window)
    return f"{settings.data} {settings.digest} {seen}"


def generate(
    subject: Subject, given: Sequence[str], target: str, examples: int = 10, iterations: int | None = None
) -> Made:
    """One modality of some test examples from others, by every means that the model has.

    Args:
        given: the modalities that the model sees; all others are missing.
        target: the one to make.
        examples: how many, one of each class in turn (`choose_examples`).
        iterations: of iterative sampling; the run's own where None.

    Raises:
        UsageError: the model cannot generate, or has no such modality.
    """
    known = [modality.name for modality in subject.data.modalities]
    model, settings = cast(Model, subject.model), subject.run.settings
    if len(known) < 2 or isinstance(model, SDGM):
        raise UsageError(
            f"{subject.run.folder} has seen {known[0]} alone, so it makes nothing else from it",
            "train on two modalities or more",
        )
    for name in (*given, target):
        if name not in known:
            raise UsageError(f"{subject.run.folder} has seen no modality '{name}'", f"modalities: {', '.join(known)}")
    if target in given or not given or len(set(given)) < len(given):
        raise UsageError(f"{target} from {', '.join(given) or 'nothing'}: choose another modality to make it from")
    rows = choose_examples(subject.shard.test.labels, examples)
    features = features_of(subject.shard.test, (*given, target), rows)
    device = subject.data.label.device
    seen = {name: torch.from_numpy(features[name])[None].to(device) for name in given}  # [1, N, D]
    made = {}
    with precision(settings, device), evaluating(subject.model, subject.noise):
        for means in model.completions:
            fill = completion(
                means, subject.model, subject.noise, subject.data.modalities, iterations or settings.iterations
            )
            made[means] = reconstruct(subject.model, fill(dict(seen)), target)[0].float().cpu().numpy()
    return Made({name: features[name] for name in given}, target, features[target], made, rows)


def features_of(part: Part, names: Sequence[str], rows: NDArray[np.int64]) -> dict[str, Features]:
    """The features `[N, D]` of some rows; no others are in memory.

    Raises:
        DataError: the file was damaged since it was opened.
    """
    order = np.argsort(rows)
    pieces = list(part.pieces(names, [slice(row, row + 1) for row in map(int, rows[order])]))
    back = np.argsort(order)
    return {name: np.concatenate([piece[name] for piece in pieces])[back] for name in names}


def choose_examples(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Rows of a test set with these labels: the first of each class, then the second of each, and so on.

    Raises:
        UsageError: fewer than one is asked for.
    """
    if count < 1:
        raise UsageError(f"{count} examples are none", "ask for one or more: --examples 10")
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turn = np.arange(len(labels)) - np.searchsorted(ordered, ordered)  # how many of its class come before
    unknown = ordered < 0
    return order[np.lexsort((ordered, turn, unknown))][:count]


def infer(model: nn.Module, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The latent variable's posterior mean `[R, B, Z]`, and the label `[R, B, K]` that it is inferred with, if any.

    Args:
        x: what `completion` made of the given modalities.
    """
    if isinstance(model, SSMVAE | M2):
        log_q = model.classify(x)
        y = one_hot(log_q.argmax(-1), log_q.shape[-1])
        q_z = model.q_z(**x, y=y) if isinstance(model, SSMVAE) else model.q_z(x=model.concatenate(x), y=y)
        return q_z.mean, y
    if isinstance(model, SDGM):
        return model.q_a(**x).mean, None
    return cast(LatentModel, model).encode(x).mean, None


def reconstruct(model: nn.Module, x: Mapping[str, Tensor], target: str) -> Tensor:
    """The mean `[R, B, D]` of the target modality, given what x tells of the latent variables."""
    latent, y = infer(model, x)
    if isinstance(model, SSMVAE):
        return model.p_x[target](z=latent, y=y).mean
    if isinstance(model, M2):
        joint = model.p_x(z=latent, y=y).mean
        widths = [x[name].shape[-1] for name in model.modalities]
        return torch.split(joint, widths, dim=-1)[list(model.modalities).index(target)]
    return cast(LatentModel, model).decode(latent, target).mean
