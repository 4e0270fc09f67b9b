"""Models with latents of one or two dimensions, three classes and layers of three units, their parameters at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.shards.shard import Modality
from trainer.models.factory import Factory
from trainer.models.posterior import Pooling
from trainer.models.registry import card
from trainer.nn.batch_norm import ReplicaBatchNorm
from trainer.nn.distributions import Conditional, Gaussian
from trainer.nn.labels import LabelPrior, LabelRule
from trainer.nn.presence import Incomplete
from trainer.nn.rng import Noise

CLASSES = 3
TWO = (Modality("x", 3, "bernoulli"), Modality("w", 2, "nonnegative"))
ALIKE = (Modality("x", 2, "bernoulli"), Modality("w", 1, "bernoulli"))  # what M2 can join
ODD = (Modality("keys", 2, "bernoulli"), Modality("rgb.left", 2, "gaussian"), Modality("my depth", 1, "nonnegative"))
LABELLED_MODELS = ("m2", "sdgm", "ssmvae", "sshmvae", "sshmvae-kl")
UNLABELLED_MODELS = ("jmvae", "jmvae-kl")
ALL_MODELS = (*LABELLED_MODELS, *UNLABELLED_MODELS)
KL_MODELS = ("sshmvae-kl", "jmvae-kl")


def networks(name: str, a: int = 1, z: int = 1) -> dict[str, str]:
    """Template networks of a model, with latents of `a` and `z` dimensions."""
    jmvae = {"q(z|X)": f"(X-D3BR)-D3BR, D{z}", "p(x|z)": "z-D3BR, Dx"}
    ssmvae = {
        "q(y|X)": "(X-D3BR)-D3BR, DK",
        "q(z|X,y)": f"(y, X-D3BR)-D3BR, D{z}",
        "p(x|z,y)": "(z, y)-D3BR, Dx",
    }
    sshmvae = {
        "q(a|X)": f"(X-D3BR), D{a}",
        "q(y|a)": "a-D3BR, DK",
        "q(z|a,y)": f"(a-D2BR, y), D{z}",
        "p(a|z,y)": f"(z, y)-D3BR, D{a}",
        "p(x|a)": "a-D3BR, Dx",
    }
    sdgm = {
        "q(a|X)": f"X-D3BR, D{a}",
        "q(y|X,a)": "(X-D3BR, a)-D3BR, DK",
        "q(z|X,y,a)": f"(X-D3BR, y, a)-D3BR, D{z}",
        "p(a|z,y)": f"(z, y)-D3BR, D{a}",
        "p(x|a,y,z)": "(a, y, z)-D3BR, Dx",
    }
    return {
        "jmvae": jmvae,
        "jmvae-kl": jmvae | {"q(z|x)": f"x-D3BR, D{z}"},
        "m2": ssmvae,
        "sdgm": sdgm,
        "ssmvae": ssmvae,
        "sshmvae": sshmvae,
        "sshmvae-kl": sshmvae | {"q(a|x)": f"x-D3BR, D{a}"},
    }[name]


@dataclass(frozen=True)
class Tiny:
    """A stack of replicas of a tiny model, in evaluation mode, and what it was made from."""

    name: str
    model: Any
    noise: Noise
    modalities: tuple[Modality, ...]
    replicas: int
    pooling: Pooling = "geometric"
    joint_encoder: bool = True

    def x(self, batch: int, seed: int = 0, copies: int = 1) -> dict[str, Tensor]:
        """Examples `[R, batch * copies, D]` of each modality's distribution; those of a bernoulli modality are bits."""
        g = torch.Generator().manual_seed(seed)
        examples = {}
        for m in self.modalities:
            v = torch.randn(self.replicas, batch, m.width, generator=g)
            v = {"bernoulli": (v > 0).float(), "nonnegative": v.abs(), "gaussian": v}[m.distribution]
            examples[m.name] = v.repeat_interleave(copies, dim=1)
        return examples

    def lacking(self, batch: int) -> Incomplete:
        """The same examples, of which each lacks other modalities, but never all."""
        x = self.x(batch)
        index = torch.arange(batch) + torch.arange(self.replicas)[:, None]
        has = {m: index % (len(x) + 1) != k for k, m in enumerate(x)}
        return Incomplete({m: v * has[m].unsqueeze(-1) for m, v in x.items()}, has)

    def y(self, batch: int, copies: int = 1) -> Tensor:
        """Labels `[R, batch * copies, K]`, one-hot."""
        index = (torch.arange(batch) + torch.arange(self.replicas)[:, None]) % CLASSES
        return torch.eye(CLASSES)[index].repeat_interleave(copies, dim=1)


def tiny(
    name: str,
    *,
    label: str = "exact",
    temperature: float = 0.5,
    replicas: int = 2,
    modalities: Sequence[Modality] | None = None,
    a: int = 1,
    z: int = 1,
    seed: int = 0,
    written: dict[str, str] | None = None,
    pooling: Pooling = "geometric",
    joint_encoder: bool = True,
) -> Tiny:
    if modalities is None:
        modalities = {"m2": ALIKE, "sdgm": TWO[:1]}.get(name, TWO)
    noise = Noise([seed + r for r in range(replicas)])
    rule = LabelRule(label, temperature)  # type: ignore[arg-type]
    factory = Factory(
        written or networks(name, a, z), tuple(modalities), CLASSES, noise, rule, LabelPrior(), pooling, joint_encoder
    )
    model = card(name).build(factory).eval()
    randomize(model, seed)
    return Tiny(name, model, noise, tuple(modalities), replicas, pooling, joint_encoder)


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Parameters and running statistics that are nowhere 0 or 1, different in every replica."""
    g = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=g))
        for module in model.modules():
            if isinstance(module, Gaussian):  # variances near 1: the terms of a bound vary little
                module.heads[1].weight.mul_(0.4)
                module.heads[1].bias.abs_()
            if isinstance(module, ReplicaBatchNorm):
                module.scale.copy_(1 + 0.3 * torch.randn(module.scale.shape, generator=g))
                module.mean.copy_(0.5 * torch.randn(module.mean.shape, generator=g))
                module.variance.copy_(0.5 + torch.rand(module.variance.shape, generator=g))


def conditionals(model: nn.Module) -> dict[str, Conditional]:
    """Every distribution of a model by its written name."""
    return {module.name: module for module in model.modules() if isinstance(module, Conditional)}


def replay(subject: Tiny, monkeypatch: pytest.MonkeyPatch, **draws: list[Tensor]) -> None:
    """Makes the model draw the given noise, in order."""
    for kind, tensors in draws.items():
        left = iter(tensors)
        monkeypatch.setattr(subject.noise, kind, lambda shape, left=left: next(left).reshape(shape))
