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
from trainer.models.interface import LatentModel
from trainer.nn.rng import Noise

Classify = Callable[[Mapping[str, Tensor]], Tensor]


def probe(
    model: LatentModel,
    noise: Noise,
    data: Data,
    given: Sequence[str],
    fill: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Classify:
    """A classifier for a model that has none: logistic regression from the latent's mean.

    One per replica, fitted on its labelled examples, which are completed as the test set will be.
    meet.
    """
    fitted = []
    for replica, own in enumerate(data.examples):
        rows = torch.from_numpy(own.labelled).to(data.label.device)
        index = rows.expand(len(data.examples), -1)  # every replica encodes them; only its own are kept
        x = data.x(index)
        with noise.limit_rows([len(rows) * (r == replica) for r in range(len(data.examples))]):
            latent = model.encode(fill({m: x[m] for m in given})).mean[replica]
        regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        fitted.append(regression.fit(latent.cpu().numpy(), data.label[rows].cpu().numpy()))

    def classify(x: Mapping[str, Tensor]) -> Tensor:
        latents = model.encode(x).mean.cpu().numpy()
        decisions: list[NDArray[np.float64]] = [
            own.decision_function(latent).astype(np.float64) for own, latent in zip(fitted, latents, strict=True)
        ]
        if decisions[0].ndim == 1:  # two classes: the second one's logit against the first
            decisions = [np.stack([np.zeros_like(own), own], axis=-1) for own in decisions]
        return torch.from_numpy(np.stack(decisions)).log_softmax(-1).float()  # not the log of what may underflow to 0

    return classify
