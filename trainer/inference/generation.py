"""Generates one modality of test examples from others with a finished run's model.

Each way in which the model completes missing modalities (`Model.completions`) infers the latent variables from the
given ones, at the posterior's mean; the result is the mean of the target's distribution:

    JMVAE, SS-HMVAE and their -kl   p(w|a) at the mean of q(a|x), q(a|x,0), or of iterative sampling's q(a|x,w) (eq. 11)
    SS-MVAE, M2                     p(w|z,y) at the mean of q(z|x,0,y), for the most probable y of q(y|x,0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Features, Part, Shard
from trainer.evaluation.evaluate import evaluating
from trainer.evaluation.missing_modalities import completer
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.training.precision import precision


@dataclass(frozen=True)
class GeneratedModality:
    """One modality of N test examples: the true values, and those generated from other modalities.

    Attributes:
        shard: the shard whose test set the examples are from.
        given: the modalities that were given, `[N, D]` each.
        target: name of the generated modality.
        true: its true values, `[N, D]`.
        made: its generated values by method, `[N, D]` each: a completion of one run's model, or a run and a completion.
        rows: the examples' rows in the shard's test set, `[N]`.
    """

    shard: Shard
    given: Mapping[str, NDArray[np.float32]]
    target: str
    true: NDArray[np.float32]
    made: Mapping[str, NDArray[np.float32]]
    rows: NDArray[np.int64]

    @property
    def title(self) -> str:
        """The direction and the data set: `w from x, hm-mnist`."""
        return f"{self.target} from {'+'.join(self.given)}, {self.shard.dataset}"


def generate(
    loaded: LoadedRun, given: Sequence[str], target: str, examples: int = 10, iterations: int | None = None
) -> GeneratedModality:
    """Generates one modality of some test examples from others, with every completion that the model has.

    Args:
        given: the modalities that the model sees; all others are missing.
        target: the modality to generate.
        examples: how many, one of each class in turn (`choose_examples`).
        iterations: iterations of iterative sampling; None for the run's own setting.

    Raises:
        UsageError: the model cannot generate, or has no such modality.
        DataError: no test example has all of these modalities.
    """
    known = [modality.name for modality in loaded.data.modalities]
    folder, settings, trained = loaded.run.folder, loaded.run.settings, loaded.generative
    if len(known) < 2:
        raise UsageError(
            f"{folder} was trained on {known[0]} alone, so it cannot generate another modality",
            "train on two or more modalities",
        )
    for name in (*given, target):
        if name not in known:
            raise UsageError(f"{folder} has no modality '{name}'", f"modalities: {', '.join(known)}")
    if target in given or not given or len(set(given)) < len(given):
        raise UsageError(f"{target} from {', '.join(given) or 'nothing'}: choose another modality to generate it from")
    test = loaded.shard.test
    complete = np.flatnonzero(np.logical_and.reduce([test.has(name) for name in (*given, target)]))
    if not complete.size:
        raise DataError(
            f"{loaded.shard.path}: no test example has {' and '.join((*given, target))}, so there is no truth to show",
            "mmssl.load(RUN).impute(...) fills in what your own rows lack (docs/guide/predict.md)",
        )
    rows = complete[choose_examples(test.labels[complete], examples)]
    features = features_of(loaded.shard.test, (*given, target), rows)
    device, model = loaded.data.label.device, cast(Model, trained.model)
    seen = {name: torch.from_numpy(features[name])[None].to(device) for name in given}  # [1, N, D]
    made = {}
    with precision(settings, device), evaluating(trained.model, trained.noise):
        for completion in model.completions:
            fill = completer(
                completion, trained.model, trained.noise, loaded.data.modalities, iterations or settings.iterations
            )
            made[completion] = model.reconstruct(fill(dict(seen)), target)[0].float().cpu().numpy()
    return GeneratedModality(
        loaded.shard, {name: features[name] for name in given}, target, features[target], made, rows
    )


def features_of(part: Part, names: Sequence[str], rows: NDArray[np.int64]) -> dict[str, Features]:
    """Reads the features `[N, D]` of some rows, without holding others in memory.

    Raises:
        DataError: the file was damaged since it was opened.
    """
    order = np.argsort(rows)
    pieces = list(part.pieces(names, [slice(row, row + 1) for row in map(int, rows[order])]))
    original_order = np.argsort(order)
    return {name: np.concatenate([piece[name] for piece in pieces])[original_order] for name in names}


def choose_examples(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Chooses rows of a test set with these labels: the first of each class, then the second of each, and so on.

    Raises:
        UsageError: the count is below 1.
    """
    if count < 1:
        raise UsageError(f"cannot generate {count} examples", "ask for one or more: --examples 10")
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    rank_in_class = np.arange(len(labels)) - np.searchsorted(ordered, ordered)  # how many of its class come before
    unknown = ordered < 0
    return order[np.lexsort((ordered, rank_in_class, unknown))][:count]
