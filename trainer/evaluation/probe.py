"""A linear probe for models that have no classifier."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from trainer.data.interface import Data
from trainer.evaluation.missing_modalities import Fill
from trainer.models.interface import LatentModel
from trainer.nn.presence import any_present, given
from trainer.nn.rng import Noise

MOST_ITERATIONS = 5000  # of the optimiser of the logistic regression
Classify = Callable[[Mapping[str, Tensor]], Tensor]


def probe(
    model: LatentModel,
    noise: Noise,
    data: Data,
    names: Sequence[str],
    fill: Fill,
) -> Classify:
    """A classifier for a model without one: logistic regression on the mean of the latent variable.

    Each replica's regression is fitted on its labelled examples, completed in the same way as the test set. Those that
    have none of the modalities count only where a class would otherwise have no example.
    """
    regressions = []
    for replica, examples in enumerate(data.examples):
        rows = torch.from_numpy(examples.labelled).to(data.label.device)
        rows = rows[_telling(data, rows, names)]
        index = rows.expand(len(data.examples), -1)  # every replica encodes them, and only this replica's are kept
        x = data.x(index)
        with noise.limit_rows([len(rows) * (r == replica) for r in range(len(data.examples))]):
            latent = model.encode(fill(given(x, names))).mean[replica]
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MOST_ITERATIONS))
        regressions.append(regression.fit(latent.cpu().numpy(), data.label[rows].cpu().numpy()))

    def classify(x: Mapping[str, Tensor]) -> Tensor:
        latents = model.encode(x).mean.cpu().numpy()
        decisions = [
            logits_of(regression.decision_function(latent))
            for regression, latent in zip(regressions, latents, strict=True)
        ]
        return torch.from_numpy(np.stack(decisions)).log_softmax(-1).float()  # predict_proba can underflow to 0

    return classify


def _telling(data: Data, rows: Tensor, names: Sequence[str]) -> Tensor:
    """Which labelled rows, bool `[L]`, have any of some modalities, or are of a class of which no row has."""
    there = any_present(given(data.x(rows), names))
    if there is None:
        return torch.ones_like(rows, dtype=torch.bool)
    label = data.label[rows]
    return there | ~torch.isin(label, label[there])


def logits_of(decision: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits `[N, K]` from the decision values of one of scikit-learn's classifiers.

    Of two classes it has only the logit of the second, relative to the first, `[N]`.
    """
    values = decision.astype(np.float64)
    return values if values.ndim > 1 else np.stack([np.zeros_like(values), values], axis=-1)
