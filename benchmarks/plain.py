"""SS-HMVAE-kl for two modalities written without a replica axis: nn.Linear, BatchNorm1d, one generator.

It takes the same step on the same batches, labelled and unlabelled rows in two passes. `JoinedStep` takes both in one,
without the batch statistics of their own that ours have (docs/design/deviations.md, 4): not a step to train with, but
the rate that this machine reaches for a step of this size.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-6
TEMPERATURE = 0.1  # of the relaxed label
LABELLED = 100  # the number of labelled examples


def mlp(*widths: int) -> nn.Sequential:
    """D...BR layers of these widths."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Gaussian(nn.Module):
    """A diagonal normal distribution on top of a hidden network."""

    def __init__(self, hidden: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden, self.mean, self.variance = hidden, nn.Linear(width, outputs), nn.Linear(width, outputs)

    def forward(self, *given: Tensor) -> Normal:
        h = self.hidden(torch.cat(given, -1) if len(given) > 1 else given[0])
        variance = F.softplus(self.variance(h)) + VARIANCE_FLOOR
        return Normal(self.mean(h), variance.sqrt(), validate_args=False)


class Joint(nn.Module):
    """The network (x-D512BR-D512BR, w-D512BR-D512BR)-D512BR, given x and w side by side."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.x, self.w, self.both = mlp(width, hidden, hidden), mlp(width, hidden, hidden), mlp(2 * hidden, hidden)

    def forward(self, x_and_w: Tensor) -> Tensor:
        x, w = x_and_w.split(self.width, -1)
        joined: Tensor = self.both(torch.cat([self.x(x), self.w(w)], -1))
        return joined


class PlainSSHMVAEkl(nn.Module):
    """The networks of sshmvae-kl in the MNIST preset, and its bound."""

    def __init__(self, width: int, classes: int, hidden: int = 512, a: int = 128, z: int = 64) -> None:
        super().__init__()
        self.classes = classes
        self.q_a = Gaussian(Joint(width, hidden), hidden, a)
        self.q_a_x, self.q_a_w = (Gaussian(mlp(width, hidden, hidden), hidden, a) for _ in range(2))
        self.q_y = nn.Sequential(mlp(a, hidden), nn.Linear(hidden, classes))
        self.q_z = Gaussian(mlp(a + classes, hidden, hidden), hidden, z)
        self.p_a = Gaussian(mlp(z + classes, hidden, hidden), hidden, a)
        self.p_x, self.p_w = (nn.Sequential(mlp(a, hidden, hidden), nn.Linear(hidden, width)) for _ in range(2))

    def terms(self, x: Tensor, w: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, log q(y) of the observed label, and the divergence, each a mean over the batch."""
        q_a = self.q_a(x, w)
        a = q_a.rsample()
        log_q = F.log_softmax(self.q_y(a), -1)
        label = y
        if label is None:
            gumbel = -torch.empty_like(log_q).exponential_().log()
            label = torch.softmax((log_q + gumbel) / TEMPERATURE, -1)
        q_z = self.q_z(a, label)
        z = q_z.rsample()
        bound = -F.binary_cross_entropy_with_logits(self.p_x(a), x, reduction="none").sum(-1)
        bound = bound - F.binary_cross_entropy_with_logits(self.p_w(a), w, reduction="none").sum(-1)
        bound = bound + self.p_a(z, label).log_prob(a).sum(-1) - q_a.log_prob(a).sum(-1) - q_z.log_prob(z).sum(-1)
        bound = bound - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) - math.log(self.classes)
        agreement = (label * log_q).sum(-1)
        bound = bound if y is not None else bound - agreement
        divergence = kl_divergence(q_a, self.q_a_x(x)).sum(-1) + kl_divergence(q_a, self.q_a_w(w)).sum(-1)
        return bound.mean(), agreement.mean(), divergence.mean()


class PlainStep:
    """The same step as `trainer.training.step.Step` takes at R = 1, written plainly."""

    def __init__(self, x: Tensor, w: Tensor, label: Tensor, classes: int, learning_rate: float) -> None:
        self.x, self.w, self.label = x, w, label
        self.model = PlainSSHMVAEkl(x.shape[-1], classes).to(x.device)
        self.norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm1d)]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate, fused=True)

    def __call__(self, labelled: Tensor, unlabelled: Tensor, alpha: float, beta: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        y = F.one_hot(self.label[labelled], self.model.classes).float()
        for norm in self.norms:
            norm.track_running_stats = False
        bound_l, log_q_y, divergence_l = self.model.terms(self.x[labelled], self.w[labelled], y)
        for norm in self.norms:
            norm.track_running_stats = True
        bound_u, _, divergence_u = self.model.terms(self.x[unlabelled], self.w[unlabelled], None)
        share = LABELLED / len(self.x)
        divergence = share * divergence_l + (1 - share) * divergence_u
        loss = -(bound_l + alpha * log_q_y + bound_u - beta * divergence)
        loss.backward()
        self.optimizer.step()


class JoinedStep(PlainStep):
    """One pass over all rows, labelled or not: half as many matrix products, each on more rows."""

    def __call__(self, labelled: Tensor, unlabelled: Tensor, alpha: float, beta: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        rows = torch.cat([labelled, unlabelled])
        bound, log_q_y, divergence = self.model.terms(self.x[rows], self.w[rows], None)
        (-(bound + alpha * log_q_y - beta * divergence)).backward()
        self.optimizer.step()
