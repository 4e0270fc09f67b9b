"""One modality of test examples made from another by a finished run.

What the model has against missing modalities (`Model.completions`) infers its latent variables from the given ones, at
the posterior's mean, and what is shown is the mean of the target's distribution:

    JMVAE, SS-HMVAE and their -kl   p(w|a) at the mean of q(a|x), q(a|x,0), or of iterative sampling's q(a|x,w) (eq. 11)
    SS-MVAE, M2                     p(w|z,y) at the mean of q(z|x,0,y), for the most probable y of q(y|x,0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.runtime.errors import UsageError
from pipeline.shards.shard import Features, Part
from trainer.evaluation.evaluate import evaluating
from trainer.evaluation.missing_modalities import completer
from trainer.inference.loading import LoadedRun
from trainer.models.interface import Model
from trainer.training.step import precision


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


def generate(
    loaded: LoadedRun, given: Sequence[str], target: str, examples: int = 10, iterations: int | None = None
) -> Made:
    """One modality of some test examples from others, with every completion that the model has.

    Args:
        given: the modalities that the model sees; all others are missing.
        target: the one to make.
        examples: how many, one of each class in turn (`choose_examples`).
        iterations: of iterative sampling; the run's own where None.

    Raises:
        UsageError: the model cannot generate, or has no such modality.
    """
    known = [modality.name for modality in loaded.data.modalities]
    folder, settings, trained = loaded.run.folder, loaded.run.settings, loaded.generative
    if len(known) < 2:
        raise UsageError(
            f"{folder} has seen {known[0]} alone, so it makes nothing else from it", "train on two modalities or more"
        )
    for name in (*given, target):
        if name not in known:
            raise UsageError(f"{folder} has seen no modality '{name}'", f"modalities: {', '.join(known)}")
    if target in given or not given or len(set(given)) < len(given):
        raise UsageError(f"{target} from {', '.join(given) or 'nothing'}: choose another modality to make it from")
    rows = choose_examples(loaded.shard.test.labels, examples)
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
