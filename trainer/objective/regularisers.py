"""Terms beyond the paper that teach the classifier of any model more from the same data.

Each is a mean over its batch, `[R]`, to be minimised, and is weighted by a setting; weight 0 is the paper's objective.
They call the model's own `classify` with the latent variables at their means, as evaluation does.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from trainer.models.interface import Classifier
from trainer.nn.labels import certainty, divergence, sharpened
from trainer.nn.presence import present_rows, where_present
from trainer.nn.rng import Noise
from trainer.objective.smoothness import smoothness
from trainer.objective.views import Features, View, Views, alone, singles
from trainer.settings.run_settings import Settings

Penalty = tuple[float | Tensor, Tensor]  # weight, value [R]
_SHARPNESS = 3  # of propagated labels; 2 to 4 makes them calibrated on every data set we tried (docs/log/2026-11.md)


def label_terms(settings: Settings, views: Views, soft: Tensor | None = None) -> dict[str, Penalty]:
    """What labels say, given and propagated ones, as (weight, value `[R]`) by name; these terms join at the first step.

    Args:
        soft: the propagated labels of the unlabelled rows, `[R, U, K]`, if there are any.
    """
    result: dict[str, Penalty] = {}
    if soft is not None:
        result["-log q(y) propagated"] = settings.propagation, propagated_labels(views.every(views.unlabelled), soft)
    if settings.partial_alpha and views.y is not None:
        result["-log q(y) of one modality"] = settings.partial_alpha, partial_labels(views, views.y)
    if settings.mean_alpha and views.y is not None:
        log_q = views.joint.part(views.labelled).log_q
        result["-log q(y) at the mean"] = settings.mean_alpha, -(views.y * log_q).sum(-1).mean(-1)
    return result


def penalties(settings: Settings, noise: Noise, views: Views) -> dict[str, Penalty]:
    """What unlabelled examples say of the classes, as (weight, value `[R]`) by name; these terms join at the onset."""
    result: dict[str, Penalty] = {}
    if settings.smoothness:
        value = smoothness(
            views.classify, noise, views.x, settings.radius, log_q=views.joint.log_q, first=views.labelled
        )
        result["smoothness"] = settings.smoothness, value
    if not views.has_unlabelled:
        return result
    rows, x_u, model = views.unlabelled, views.x_u, views.model
    if settings.partial_smoothness:
        known = {m: view.part(rows) for m, view in views.singles.items()}
        with alone(model):
            terms = [
                smoothness(model.classify, noise, part, settings.radius, known[m].rows, known[m].log_q)
                for m, part in singles(model, x_u).items()
            ]
        result["smoothness of one modality"] = settings.partial_smoothness, torch.stack(terms).sum(0)
    if settings.consistency:
        result["consistency"] = settings.consistency, consistency(model, x_u, views.joint.part(rows).log_q)
    if settings.information:
        result["-I(y; X)"] = settings.information, -information(views.joint.part(rows).log_q)
    if settings.agreement:
        result["-I(y; y')"] = settings.agreement, -agreement(views.every(rows))
    return result


def propagated_labels(views: Sequence[View], soft: Tensor) -> Tensor:
    """-log q(y|view) of the soft labels p, summed over the views, `[R]`.

        mean over the batch of  c * sum over the views of -sum_k t_k log q(k|view),  t = p^3 / sum p^3
        c = ((p_1 - p_2) / (p_1 + p_2))^2,  p_1 and p_2 the two greatest

    c is how sure the soft label is of its class against the next one: a row that lies between two classes teaches
    nothing, and where the graph is poor, few rows say much. p itself is much less sure than it is right; t is about as
    sure as it is right.

    Args:
        views: of the same rows, as `Views.every`.
        soft: p `[R, B, K]`, from `trainer.data.propagation`.
    """
    target = sharpened(soft, _SHARPNESS)
    terms = [where_present(view.rows, -(target * view.log_q).sum(-1)) for view in views]
    return (certainty(soft) * torch.stack(terms).sum(0)).mean(-1)


def partial_labels(views: Views, y: Tensor) -> Tensor:
    """-log q(y|x_m) of the observed label, summed over the modalities m: eq. 6's signal for single modalities."""
    observed = [view.part(views.labelled) for view in views.singles.values()]
    terms = [where_present(view.rows, -(y * view.log_q).sum(-1)) for view in observed]
    return torch.stack(terms).sum(0).mean(-1)


def consistency(model: Classifier, x: Features, log_q: Tensor) -> Tensor:
    """sum_m KL(q(y|X) || q(y|x_m)): each modality alone should predict what all modalities predict together.

    q(y|X) is the teacher and does not learn: no gradient flows through it. In a model with single-modality encoders,
    only these learn, because a classifier q(y|a) that is also trained on what a single modality cannot tell got worse
    for all modalities together and for each alone.

    Args:
        log_q: log q(y|X), `[R, B, K]`.
    """
    with only_encoders(model), alone(model):
        terms = [
            where_present(present_rows(x, m), divergence(log_q.detach(), model.classify(part)))
            for m, part in singles(model, x).items()
        ]
        return torch.stack(terms).sum(0).mean(-1)


def information(log_q: Tensor) -> Tensor:
    """I(y; X) = H(mean of q(y|X)) - mean of H(q(y|X)) over the batch, `[R, B, K] -> [R]`.

    It is large if each example is assigned to one class with confidence and the classes are equally frequent, as in
    the paper's p(y). Krause et al. 2010 (regularized information maximization), eq. 3. Without it, smoothness alone is
    minimised by a uniform prediction on unlabelled examples.
    """
    marginal = torch.logsumexp(log_q, -2) - math.log(log_q.shape[-2])
    return entropy(marginal) - entropy(log_q).mean(-1)


def agreement(views: Sequence[View]) -> Tensor:
    """The mutual information of two views' labels, summed over pairs of views (all modalities, and each alone).

        P(y, y') = mean over the batch of q(y|view) q(y'|view'), symmetrised;  I = KL(P(y, y') || P(y) P(y'))

    It is large if the views agree on the class and the classes are about equally frequent. Classes of other frequencies
    do not mind: with -KL(P(y) || p(y)) in place of H(P(y)), a prior of another shape made things worse, even the true
    one (docs/log/2026-11.md). A class that only one modality can tell apart (by its slant, say, if the other modality
    is rotated at random) gains nothing: the views share what they find. All networks learn from it, q(y|a) included:
    unlike `consistency`, it never asks for an uncertain prediction. Rows that lack one of two views do not count for
    this pair.

    Ji et al. 2019 (invariant information clustering, doi:10.1109/ICCV.2019.00996), eqs. 2 and 3, with modalities
    instead of transformed copies.

    Args:
        views: of the same examples.
    """
    return torch.stack([_shared_information(p, q) for p, q in combinations(views, 2)]).sum(0)


def _shared_information(first: View, second: View) -> Tensor:
    p, q = first.log_q.exp().double(), second.log_q.exp().double()  # neither autocast nor TF32 rounds float64
    number: Tensor | int = p.shape[-2]
    rows = [view.rows for view in (first, second) if view.rows is not None]
    if rows:
        both = torch.stack(rows).all(0)
        p, number = torch.where(both.unsqueeze(-1), p, 0.0), both.sum(-1).clamp_min(1)[:, None, None]
    joint = (p.transpose(-1, -2) @ q / number).float()  # [R, K, K]
    joint = ((joint + joint.transpose(-1, -2)) / 2).clamp_min(torch.finfo(joint.dtype).tiny)
    independent = joint.sum(-1, keepdim=True).log() + joint.sum(-2, keepdim=True).log()
    return (joint * (joint.log() - independent)).sum((-1, -2))


@contextmanager
def only_encoders(model: Classifier) -> Iterator[None]:
    """A context in which only the single-modality encoders get gradients; all weights in models without encoders."""
    frozen: list[nn.Parameter] = []
    if "encoders" in model.completions:
        learning = set(model.encoders.parameters())
        frozen = [parameter for parameter in cast(nn.Module, model).parameters() if parameter not in learning]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def entropy(log_p: Tensor) -> Tensor:
    """The entropy in nats of a categorical distribution given as log-probabilities, `[..., K] -> [...]`."""
    return -(log_p.exp() * log_p).sum(-1)
