"""Conditional distributions: modules that take the values they are conditioned on and return a distribution.

The distributions are torch.distributions objects. Densities are per example, summed over the last axis, and always
float32: `[R, B]`, or `[K, R, B]` where a condition has the leading class axis (see `trainer.nn.labels`). Noise comes
from each replica's own generator.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, OneHotCategorical
from torch.nn import functional as F

from trainer.nn.layers import MLP, ReplicaLinear, over_classes
from trainer.nn.notation import Notation
from trainer.nn.presence import present_rows, where_present
from trainer.nn.rng import Noise

NONE: Mapping[str, Tensor] = MappingProxyType({})  # no modalities
VARIANCE_FLOOR = 1e-6  # softplus underflows to 0 in float32, and a density of variance 0 has no logarithm


class _Summed(Independent):  # type: ignore[type-arg, unused-ignore]
    """Independent elements along the last axis; the log-density is summed over them."""

    def __init__(self, elements: Distribution) -> None:
        super().__init__(elements, 1, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_probs(value).sum(-1)

    def log_probs(self, value: Tensor) -> Tensor:
        """The log-density of each element."""
        return cast(Tensor, self.base_dist.log_prob(value))


class DiagonalNormal(_Summed):
    """N(mean, diag(variance)) over the last axis."""

    def __init__(self, mean: Tensor, variance: Tensor, noise: Noise) -> None:
        super().__init__(Normal(mean, variance.sqrt(), validate_args=False))
        self.noise = noise

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One sample, mean + standard deviation * noise, differentiable in both."""
        assert not sample_shape, "one reparameterised sample at a time"
        mean, deviation = cast(Normal, self.base_dist).loc, cast(Normal, self.base_dist).scale
        return mean + deviation * self.noise.normal(mean.shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def points(self, count: int) -> Iterator[Tensor]:
        """`count` points like samples, but with fixed noise, the same for every row, replica and call.

        An average over them depends on the distribution alone: it is no other tomorrow, or beside other rows. They come
        in pairs on opposite sides of the mean.
        """
        mean, deviation = cast(Normal, self.base_dist).loc, cast(Normal, self.base_dist).scale
        for noise in _fixed_noise(count, mean.shape[-1]):
            yield mean + deviation * mean.new_tensor(noise)


@lru_cache(maxsize=8)
def _fixed_noise(count: int, width: int) -> NDArray[np.float32]:
    """Standard normal values `[count, width]`; the second half is the first with other signs."""
    noise = np.random.default_rng(0).standard_normal((count - count // 2, width), np.float32)
    return np.concatenate([noise, -noise[: count // 2]])


class SquaredError(_Summed):
    """The appendix's `negative squared error`: log p = -|x - mean|^2, a normal of variance 1/2 without its constant."""

    def __init__(self, mean: Tensor) -> None:
        # The standard deviation is created on the mean's device: a number would be copied there, and CUDA graphs cannot
        # capture that copy.
        super().__init__(Normal(mean, mean.new_full((), math.sqrt(0.5)), validate_args=False))

    def log_probs(self, value: Tensor) -> Tensor:
        error: Tensor = (value - self.base_dist.loc).square()
        return -error

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns the mean: the paper assumes no noise here, and noise would leave the non-negative range."""
        assert not sample_shape
        mean: Tensor = self.base_dist.loc
        return mean.detach()


class Pixels(_Summed):
    """Independent Bernoulli values; log p is the cross entropy, which also accepts values between 0 and 1."""

    def __init__(self, logits: Tensor, noise: Noise) -> None:
        super().__init__(Bernoulli(logits=logits, validate_args=False))
        self.noise = noise

    def log_probs(self, value: Tensor) -> Tensor:
        return super().log_probs(value.float())  # torch would compute in the precision of the value

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        assert not sample_shape
        return (self.noise.uniform(self.mean.shape) < self.mean).to(self.mean.dtype)


Observation = DiagonalNormal | SquaredError | Pixels


class RelaxedLabel(OneHotCategorical):
    """Cat(y) over K classes, one-hot on the last axis, with Gumbel-softmax samples.

    `log_prob` of a relaxed label is the cross term sum_k y_k log q_k, as in eq. 5 and the authors' code; it is not the
    density of the Concrete distribution.
    """

    def __init__(self, logits: Tensor, noise: Noise) -> None:
        # Bypasses OneHotCategorical.__init__, whose inner Categorical always validates its logits. That check waits for
        # the device, cannot be captured in a CUDA graph, and hides a non-finite loss behind an error of its own.
        self._categorical = torch.distributions.Categorical(logits=logits, validate_args=False)
        Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args=False)
        self.noise = noise

    def __getitem__(self, rows: slice) -> "RelaxedLabel":
        """The same of some rows of the batch."""
        return RelaxedLabel(self.logits[..., rows, :], self.noise)

    def relaxed(self, temperature: float) -> Tensor:
        """softmax((log q + Gumbel noise) / temperature): one-hot as the temperature falls, differentiable in q."""
        return torch.softmax((self.logits + self.noise.gumbel(self.logits.shape)) / temperature, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return (value * self.logits).sum(-1)  # .logits are normalised by the base class

    def negative_entropy(self) -> Tensor:
        return (self.probs * self.logits).sum(-1)


class Conditional(nn.Module):
    """p(v|given) computed by a network: f_MLP, then one linear layer per parameter of the distribution.

    It is called with the modalities by name as its one positional argument, if it is conditioned on any, and with the
    model's own variables by keyword: `q_z(x, y=y)`. So a modality may be called `y`, too.

    Attributes:
        variables: the variable of the network that stands for each modality, where it is not called the same.
    """

    def __init__(self, name: str, notation: Notation, outputs: int, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__()
        self.name = name
        self.noise = noise
        self.variables: Mapping[str, str] = {}
        self.mlp = MLP(notation.mlp, widths, noise)
        self.heads = nn.ModuleList(ReplicaLinear(self.mlp.width, notation.units, noise) for _ in range(outputs))

    def parameters_of(self, x: Mapping[str, Tensor], latents: Mapping[str, Tensor] = NONE) -> list[Tensor]:
        """The parameters given modalities, and latent variables (an unknown label is one) by name, float32."""
        h = self.mlp({self.variables.get(m, m): value for m, value in x.items()} | dict(latents))
        return [over_classes(head, h).float() for head in self.heads]


class Gaussian(Conditional):
    """Diagonal normal: mean = linear(h), variance = softplus(linear(h)), h = f_MLP(given) (eq. 2)."""

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, name: str, notation: Notation, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__(name, notation, 2, widths, noise)

    def forward(self, x: Mapping[str, Tensor] = NONE, /, **latents: Tensor) -> DiagonalNormal:
        mean, variance = self.parameters_of(x, latents)
        return DiagonalNormal(mean, F.softplus(variance) + VARIANCE_FLOOR, self.noise)


class BernoulliPixels(Conditional):
    """Bernoulli with logits = linear(h) (eq. 3)."""

    __call__: Callable[..., Pixels]

    def __init__(self, name: str, notation: Notation, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__(name, notation, 1, widths, noise)

    def forward(self, x: Mapping[str, Tensor] = NONE, /, **latents: Tensor) -> Pixels:
        (logits,) = self.parameters_of(x, latents)
        return Pixels(logits, self.noise)


class SoftplusSquaredError(Conditional):
    """Non-negative values: mean = softplus(linear(h)), log p is the negative squared error (appendix A.1.2)."""

    __call__: Callable[..., SquaredError]

    def __init__(self, name: str, notation: Notation, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__(name, notation, 1, widths, noise)

    def forward(self, x: Mapping[str, Tensor] = NONE, /, **latents: Tensor) -> SquaredError:
        (mean,) = self.parameters_of(x, latents)
        return SquaredError(F.softplus(mean))


class Categorical(Conditional):
    """q(y|given) with logits = linear(h)."""

    __call__: Callable[..., RelaxedLabel]

    def __init__(self, name: str, notation: Notation, widths: Mapping[str, int], noise: Noise) -> None:
        super().__init__(name, notation, 1, widths, noise)

    def forward(self, x: Mapping[str, Tensor] = NONE, /, **latents: Tensor) -> RelaxedLabel:
        (logits,) = self.parameters_of(x, latents)
        return RelaxedLabel(logits, self.noise)


ObservationModel = Gaussian | BernoulliPixels | SoftplusSquaredError
OBSERVATIONS: dict[str, type[ObservationModel]] = {
    "bernoulli": BernoulliPixels,
    "nonnegative": SoftplusSquaredError,
    "gaussian": Gaussian,
}


C = TypeVar("C", bound=ObservationModel)


class PerModality(nn.Module, Generic[C]):
    """One conditional per modality: p(x|a), p(w|a), ..."""

    def __init__(self, conditionals: Mapping[str, C]) -> None:
        super().__init__()
        self.modalities = tuple(conditionals)
        self.conditionals = nn.ModuleList(conditionals.values())  # not a ModuleDict: a modality may have any name

    def items(self) -> Iterator[tuple[str, C]]:
        """Yields (modality, conditional) pairs."""
        return zip(self.modalities, cast("Iterable[C]", self.conditionals), strict=True)

    def __getitem__(self, modality: str) -> C:
        return dict(self.items())[modality]

    def log_prob(self, x: Mapping[str, Tensor], **given: Tensor) -> dict[str, Tensor]:
        """log p(x_m|given) of every modality m, keyed by the distribution's name; 0 for rows that lack the modality."""
        return {
            conditional.name: where_present(present_rows(x, m), conditional(**given).log_prob(x[m]))
            for m, conditional in self.items()
        }


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I), summed over the last axis."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
