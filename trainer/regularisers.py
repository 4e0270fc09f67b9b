"""Beyond the paper: terms that teach the classifiers more from the same data, over any model that has a classifier.

Each is a mean over its batch, `[R]`, to be minimised, and enters J with the weight that the settings give it (0: the
paper's objective). They ask the model's own `classify`, latent variables at their means, as the test does.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainer.models import Classifier
from trainer.noise import Noise
from trainer.settings import Settings

Features = Mapping[str, Tensor]
Classify = Callable[[Features], Tensor]
_PROBE = 1e-2  # how far the first look of `smoothness` goes, as a share of the radius


def penalties(
    settings: Settings, model: Classifier, noise: Noise, x_l: Features | None, y_l: Tensor | None, x_u: Features | None
) -> dict[str, tuple[float, Tensor]]:
    """(weight, value `[R]`) by name, of those that the settings ask for and the batches allow.

    Args:
        x_l, y_l: a labelled batch; None where there is none.
        x_u: an unlabelled batch; None where there is none.
    """
    found: dict[str, tuple[float, Tensor]] = {}
    if settings.partial_alpha and x_l is not None and y_l is not None:
        found["-log q(y) of one modality"] = settings.partial_alpha, partial_labels(model, x_l, y_l)
    if settings.consistency and x_u is not None:
        found["consistency"] = settings.consistency, consistency(model, x_u)
    if settings.smoothness and x_u is not None:
        found["smoothness"] = settings.smoothness, smoothness(model.classify, noise, x_u, settings.radius)
    return found


def partial_labels(model: Classifier, x: Features, y: Tensor) -> Tensor:
    """-log q(y|x_m) of the observed label, summed over the modalities m: eq. 6's signal for a single modality too."""
    terms = [-(y * model.classify(part)).sum(-1) for part in singles(model, x)]
    return torch.stack(terms).sum(0).mean(-1)


def consistency(model: Classifier, x: Features) -> Tensor:
    """sum_m KL(q(y|X) || q(y|x_m)): what all modalities tell together, each alone is to tell too.

    q(y|X) teaches and does not learn from it: no gradient goes through it.
    """
    with torch.no_grad():
        log_q = model.classify(x)
    return torch.stack([divergence(log_q, model.classify(part)) for part in singles(model, x)]).sum(0).mean(-1)


def smoothness(classify: Classify, noise: Noise, x: Features, radius: float) -> Tensor:
    """KL(q(y|X) || q(y|X + r)) at the r where it is largest (virtual adversarial training).

    Miyato et al. 2018 (doi:10.1109/TPAMI.2018.2858821), eqs. 7 to 10 with one power iteration; r runs over all
    modalities joined. Its length is `radius` times the mean length of the batch's examples, so that one value suits
    data of any scale: 0.2 is about 2 on MNIST's digits.
    """
    with torch.no_grad():
        log_q = classify(x)
        reach = radius * _length(x).mean(-2, keepdim=True)  # [R, 1, 1]
    direction = _unit({m: noise.normal(value.shape) for m, value in x.items()})
    with torch.enable_grad():
        steps = {m: (_PROBE * reach * d).requires_grad_() for m, d in direction.items()}
        away = divergence(log_q, classify(_moved(x, steps)))
        slopes = torch.autograd.grad(away.sum(), list(steps.values()))
    worst = _unit(dict(zip(steps, slopes, strict=True)))
    return divergence(log_q, classify(_moved(x, {m: reach * d for m, d in worst.items()}))).mean(-1)


def singles(model: Classifier, x: Features) -> list[dict[str, Tensor]]:
    """Each modality alone, the others by the model's first means: left out for encoders, else zeros."""
    if "encoders" in model.completions:
        return [{m: value} for m, value in x.items()]
    return [{n: value if n == m else torch.zeros_like(value) for n, value in x.items()} for m in x]


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of two categorical distributions given as log-probabilities, `[..., K] -> [...]`."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _length(x: Features) -> Tensor:
    """Of each example, over all its modalities, `[R, B, 1]`."""
    return torch.stack([value.square().sum(-1) for value in x.values()]).sum(0).sqrt().unsqueeze(-1)


def _unit(direction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Length 1 over all modalities of an example; a direction without length stays without."""
    length = _length(direction)
    return {m: d / length.clamp_min(torch.finfo(d.dtype).tiny) for m, d in direction.items()}


def _moved(x: Features, steps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {m: value + steps[m] for m, value in x.items()}
