"""Beyond the paper: terms that teach the classifiers more from the same data, over any model that has a classifier.

Each is a mean over its batch, `[R]`, to be minimised, and enters J with the weight that the settings give it (0: the
paper's objective). They ask the model's own `classify`, latent variables at their means, as the test does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from trainer.models.interface import Classifier
from trainer.nn.rng import Noise
from trainer.settings.run_settings import Settings

Features = Mapping[str, Tensor]
Classify = Callable[[Features], Tensor]
Penalty = tuple[float | Tensor, Tensor]  # weight, value [R]
_PROBE = 1e-2  # how far the first look of `smoothness` goes, as a share of the radius


def penalties(
    settings: Settings, model: Classifier, noise: Noise, x_l: Features | None, y_l: Tensor | None, x_u: Features | None
) -> dict[str, Penalty]:
    """(weight, value `[R]`) by name, of those that the settings ask for and the batches allow.

    Args:
        x_l, y_l: a labelled batch; None where there is none.
        x_u: an unlabelled batch; None where there is none.
    """
    found: dict[str, Penalty] = {}
    if settings.partial_alpha and x_l is not None and y_l is not None:
        found["-log q(y) of one modality"] = settings.partial_alpha, partial_labels(model, x_l, y_l)
    if settings.mean_alpha and x_l is not None and y_l is not None:
        found["-log q(y) at the mean"] = settings.mean_alpha, -(y_l * model.classify(x_l)).sum(-1).mean(-1)
    if settings.smoothness:
        terms = [smoothness(model.classify, noise, x, settings.radius) for x in (x_l, x_u) if x is not None]
        found["smoothness"] = settings.smoothness, torch.stack(terms).sum(0)
    if settings.consistency and x_u is not None:
        found["consistency"] = settings.consistency, consistency(model, x_u)
    if settings.information and x_u is not None:
        found["-I(y; X)"] = settings.information, -information(model.classify(x_u))
    if settings.agreement and x_u is not None:
        views = [model.classify(view) for view in (x_u, *singles(model, x_u))]
        found["-I(y; y')"] = settings.agreement, -agreement(views)
    return found


def partial_labels(model: Classifier, x: Features, y: Tensor) -> Tensor:
    """-log q(y|x_m) of the observed label, summed over the modalities m: eq. 6's signal for a single modality too."""
    terms = [-(y * model.classify(part)).sum(-1) for part in singles(model, x)]
    return torch.stack(terms).sum(0).mean(-1)


def consistency(model: Classifier, x: Features) -> Tensor:
    """sum_m KL(q(y|X) || q(y|x_m)): what all modalities tell together, each alone is to tell too.

    q(y|X) teaches and does not learn from it: no gradient goes through it, and where a modality has an encoder of its
    own, that alone learns. A classifier q(y|a) that also learned what one modality cannot tell got worse for both.
    """
    with torch.no_grad():
        log_q = model.classify(x)
    with only_encoders(model):
        return torch.stack([divergence(log_q, model.classify(part)) for part in singles(model, x)]).sum(0).mean(-1)


def information(log_q: Tensor) -> Tensor:
    """I(y; X) = H(mean of q(y|X)) - mean of H(q(y|X)) over the batch, `[R, B, K] -> [R]`.

    Large where every example is of one class, and every class as frequent as p(y), which is uniform, has it.

    Krause et al. 2010 (regularized information maximization), eq. 3. Without it, smoothness is had most cheaply by
    saying nothing of the examples that have no label.
    """
    marginal = torch.logsumexp(log_q, -2) - math.log(log_q.shape[-2])
    return entropy(marginal) - entropy(log_q).mean(-1)


def agreement(views: Sequence[Tensor]) -> Tensor:
    """Sum over pairs of views (all modalities, each alone) of the mutual information of the labels they give.

        P(y, y') = mean over the batch of q(y|view) q(y'|view'), made symmetric;  I = KL(P(y, y') || P(y) P(y'))

    Large where each view names the class that the others name, and all classes are alike in number. A class that one
    modality alone can see (a slant, where the other is rotated at random) earns nothing: what is found is shared.
    Every network learns from it, q(y|a) too: unlike `consistency`, it never asks for an unsure answer.

    Ji et al. 2019 (invariant information clustering, doi:10.1109/ICCV.2019.00996), eqs. 2 and 3, with the modalities
    in the place of transformed copies.

    Args:
        views: log q(y|.) of the same examples, `[R, B, K]` each.
    """
    return torch.stack([_shared_information(p, q) for p, q in combinations(views, 2)]).sum(0)


def _shared_information(log_p: Tensor, log_q: Tensor) -> Tensor:
    joint = (log_p.exp().unsqueeze(-1) * log_q.exp().unsqueeze(-2)).mean(-3)  # [R, K, K]; no matmul: always float32
    joint = ((joint + joint.transpose(-1, -2)) / 2).clamp_min(torch.finfo(joint.dtype).tiny)
    independent = joint.sum(-1, keepdim=True).log() + joint.sum(-2, keepdim=True).log()
    return (joint * (joint.log() - independent)).sum((-1, -2))


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


@contextmanager
def only_encoders(model: Classifier) -> Iterator[None]:
    """What is computed within it teaches the single modalities' encoders alone; every weight where there are none."""
    held: list[nn.Parameter] = []
    if "encoders" in model.completions:
        own = set(model.encoders.parameters())
        held = [parameter for parameter in cast(nn.Module, model).parameters() if parameter not in own]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of two categorical distributions given as log-probabilities, `[..., K] -> [...]`."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def entropy(log_p: Tensor) -> Tensor:
    """Of a categorical distribution given as log-probabilities, `[..., K] -> [...]`, in nats."""
    return -(log_p.exp() * log_p).sum(-1)


def _length(x: Features) -> Tensor:
    """Of each example, over all its modalities, `[R, B, 1]`."""
    return torch.stack([value.square().sum(-1) for value in x.values()]).sum(0).sqrt().unsqueeze(-1)


def _unit(direction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Length 1 over all modalities of an example; a direction without length stays without."""
    length = _length(direction)
    return {m: d / length.clamp_min(torch.finfo(d.dtype).tiny) for m, d in direction.items()}


def _moved(x: Features, steps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {m: value + steps[m] for m, value in x.items()}
