"""Terms beyond the paper that teach the classifier of any model more from the same data.

Each is a mean over its batch, `[R]`, to be minimised, and is weighted by a setting; weight 0 is the paper's objective.
They call the model's own `classify` with the latent variables at their means, as evaluation does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from trainer.models.interface import Classifier
from trainer.nn.labels import certainty, sharpened
from trainer.nn.presence import any_present, present_rows, same_rows, some_rows, where_present
from trainer.nn.rng import Noise
from trainer.objective.views import Features, View, Views, alone, singles
from trainer.settings.run_settings import Settings

Classify = Callable[[Features], Tensor]
Penalty = tuple[float | Tensor, Tensor]  # weight, value [R]
_SHARPNESS = 3  # of propagated labels; 2 to 4 makes them calibrated on every data set we tried (docs/log/2026-11.md)
_PROBE, _PROBE_BF16 = 1e-2, 0.3  # lengths of the step at which `smoothness` takes its gradient, as a part of the full


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


def smoothness(
    classify: Classify,
    noise: Noise,
    x: Features,
    radius: float,
    rows: Tensor | None = None,
    log_q: Tensor | None = None,
    first: slice = slice(0, 0),
) -> Tensor:
    """KL(q(y|X) || q(y|X + r)) at the perturbation r that maximises it (virtual adversarial training).

    Miyato et al. 2018 (doi:10.1109/TPAMI.2018.2858821), eqs. 7 to 10 with one power iteration; r spans all modalities
    jointly. The length of r is `radius` times the mean length of the batch's examples, so one value suits data of any
    scale: 0.2 corresponds to a length of about 2 on MNIST's digits.

    Args:
        rows: which examples count, bool `[R, B]`; None for all.
        log_q: `classify(x)`, if it is known.
        first: the labelled rows, if they are to count as a batch of their own: its mean is added.
    """
    batch = next(iter(x.values())).shape[1]
    batches = [part for part in (first, slice(first.stop, batch)) if part.start != part.stop]
    with torch.no_grad():
        log_q = classify(x) if log_q is None else log_q.detach()
        lengths = [_mean_length(some_rows(x, part)).expand(-1, part.stop - part.start, 1) for part in batches]
        reach = radius * torch.cat(lengths, 1)
    direction = _unit(_present(x, {m: noise.normal(value.shape) for m, value in x.items()}))
    with torch.enable_grad():
        steps = {m: (_probe(x) * reach * d).requires_grad_() for m, d in direction.items()}
        away = where_present(rows, divergence(log_q, classify(_moved(x, steps))))
        slopes = torch.autograd.grad(away.sum(), list(steps.values()))
    worst = _unit(_present(x, dict(zip(steps, slopes, strict=True))))
    moved = where_present(rows, divergence(log_q, classify(_moved(x, {m: reach * d for m, d in worst.items()}))))
    return torch.stack([moved[:, part].mean(-1) for part in batches]).sum(0)


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


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of two categorical distributions given as log-probabilities, `[..., K] -> [...]`."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def entropy(log_p: Tensor) -> Tensor:
    """The entropy in nats of a categorical distribution given as log-probabilities, `[..., K] -> [...]`."""
    return -(log_p.exp() * log_p).sum(-1)


def _length(x: Features) -> Tensor:
    """The Euclidean length of each example over all its modalities, `[R, B, 1]`."""
    return torch.stack([value.square().sum(-1) for value in x.values()]).sum(0).sqrt().unsqueeze(-1)


def _mean_length(x: Features) -> Tensor:
    """The mean length of the examples that have any of these modalities, `[R, 1, 1]`."""
    rows = any_present(x)
    if rows is None:
        return _length(_present(x, x)).mean(-2, keepdim=True)
    number = rows.sum(-1).clamp_min(1)[:, None, None]
    return _length(_present(x, x)).sum(-2, keepdim=True) / number


def _probe(x: Features) -> float:
    """How long the first step is: long enough for what it changes to stand out from the rounding of products.

    A hundredth drowns in that of bfloat16: the perturbation was worth half as much, and the training cost accuracy
    (results/2026-11-28-precision). TF32 rounds little enough.
    """
    return _PROBE_BF16 if torch.is_autocast_enabled(next(iter(x.values())).device.type) else _PROBE


def _unit(direction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scales each example's direction to length 1 over all its modalities; a direction of length 0 stays 0.

    Where predictions are very confident, slopes are so small that their squares would be 0, so the largest is made 1
    first.
    """
    largest = torch.stack([d.abs().amax(-1, keepdim=True) for d in direction.values()]).amax(0)
    scaled = {m: d / largest.clamp_min(torch.finfo(d.dtype).tiny) for m, d in direction.items()}
    length = _length(scaled)
    return {m: d / length.clamp_min(torch.finfo(d.dtype).tiny) for m, d in scaled.items()}


def _present(x: Features, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A direction without what an example lacks."""
    rows = {m: present_rows(x, m) for m in x}
    return {m: d if (there := rows[m]) is None else d * there.unsqueeze(-1) for m, d in direction.items()}


def _moved(x: Features, steps: Mapping[str, Tensor]) -> Features:
    return same_rows(x, {m: value + steps[m] for m, value in x.items()})
