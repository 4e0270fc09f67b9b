"""The paper's bounds worked out a second time: factors from its text, densities written out, sums over weighted points.

A point is one assignment of all latent variables. Points come from a grid (then the weighted mean is the expectation,
by quadrature over a and z and enumeration over y) or from noise that was recorded (then it is the bound of that one
draw). Of a model nothing is used but the outputs of its linear layers. Everything is float64 numpy.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.support.tiny_models import CLASSES, Tiny, conditionals
from trainer.nn.distributions import Conditional

Array = NDArray[np.float64]

# Inference in the order it is drawn in, and the generative model, as sections 2.1 to 3.5 have them.
FACTORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "jmvae": (("z|X",), ("X|z", "z")),
    "m2": (("y|X", "z|X,y"), ("X|z,y", "z", "y")),
    "sdgm": (("a|X", "y|X,a", "z|X,y,a"), ("X|a,y,z", "a|z,y", "z", "y")),
    "ssmvae": (("y|X", "z|X,y"), ("X|z,y", "z", "y")),
    "sshmvae": (("a|X", "y|a", "z|a,y"), ("X|a", "a|z,y", "z", "y")),
}
FACTORS |= {f"{name}-kl": FACTORS[name] for name in ("jmvae", "sshmvae")}


@dataclass(frozen=True)
class Points:
    """Weighted assignments: weights `[R, P]` and values `[R, P, D]`; a batch of B examples has P/B points each."""

    weight: Array
    values: Mapping[str, Array]

    def repeat(self, count: int) -> "Points":
        return Points(self.weight.repeat(count, 1), {name: v.repeat(count, 1) for name, v in self.values.items()})

    def having(self, name: str, value: Array, weight: Array | float = 1.0) -> "Points":
        return Points(self.weight * weight, {**self.values, name: value})


# How an unknown variable gets its values: `rule(points, parameters) -> (points, values, weights)`.
Rule = Callable[[Points, list[Array]], tuple[Points, Array, Array | float]]


def softplus(v: Array) -> Array:
    return np.logaddexp(0, v)


def variance_of(v: Array) -> Array:
    """Eq. 2; 1e-6 keeps a variance from underflowing to 0."""
    return softplus(v) + 1e-6


def raw_of(variance: Array) -> Array:
    """What `variance_of` turns into this variance."""
    return np.log(np.expm1(variance - 1e-6))


def log_normal(v: Array, mean: Array | float, variance: Array | float, there: Array | float = 1.0) -> Array:
    return -0.5 * ((np.log(2 * math.pi * variance) + (v - mean) ** 2 / variance) * there).sum(-1)


def log_softmax(logits: Array) -> Array:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def log_observation(distribution: str, v: Array, raw: list[Array], there: Array | float = 1.0) -> Array:
    """Eq. 2, eq. 3 and appendix A.1.2; `there` is 0 for elements that an example lacks."""
    if distribution == "bernoulli":
        log_p, log_not_p = -np.log1p(np.exp(-raw[0])), -np.log1p(np.exp(raw[0]))
        return ((v * log_p + (1 - v) * log_not_p) * there).sum(-1)
    if distribution == "nonnegative":
        return -((v - softplus(raw[0])) ** 2 * there).sum(-1)
    return log_normal(v, raw[0], variance_of(raw[1]), there)


def standard_grid(dimensions: int, count: int) -> tuple[Array, Array]:
    """Points `[n, D]` and weights `[n]` of N(0, I), by the trapezoid rule on [-6, 6] each way."""
    axis = np.linspace(-6, 6, count)
    grid = np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    weight = np.exp(-0.5 * (grid**2).sum(-1))
    return grid, weight / weight.sum()


def on_grid(count: int) -> Rule:
    def rule(points: Points, raw: list[Array]) -> tuple[Points, Array, Array | float]:
        eps, weight = standard_grid(raw[0].shape[-1], count)
        mean, deviation = raw[0][:, :, None], np.sqrt(variance_of(raw[1]))[:, :, None]
        value = (mean + deviation * eps).reshape(len(mean), -1, eps.shape[-1])
        return points.repeat(len(eps)), value, np.tile(weight, raw[0].shape[1])

    return rule


def with_noise(eps: Array) -> Rule:
    """The reparameterised draw; `[K, R, B, D]` noise belongs to points in which every example is there K times."""
    if eps.ndim == 4:
        eps = np.moveaxis(eps, 0, 2).reshape(eps.shape[1], -1, eps.shape[-1])
    return lambda points, raw: (points, raw[0] + np.sqrt(variance_of(raw[1])) * eps, 1.0)


def every_class(points: Points, raw: list[Array]) -> tuple[Points, Array, Array | float]:
    replicas, count, _ = raw[0].shape
    y = np.tile(np.eye(CLASSES), (replicas, count, 1))
    return points.repeat(CLASSES), y, np.exp(log_softmax(raw[0])).reshape(replicas, -1)


def observed(y: Array) -> Rule:
    """`[R, B, K]`: every point of an example has the example's label."""
    return lambda points, raw: (points, y.repeat(raw[0].shape[1] // y.shape[1], 1), 1.0)


def relaxed_with_noise(gumbel: Array, temperature: float) -> Rule:
    return lambda points, raw: (points, np.exp(log_softmax((log_softmax(raw[0]) + gumbel) / temperature)), 1.0)


def relaxed_on_grid(temperature: float, count: int) -> Rule:
    """All relaxed labels of three classes.

    With g = -log E and E ~ Exp(1), softmax((log q + g) / t) is proportional to (q / E)^(1/t), which depends on the E
    through their proportions alone; and these are uniform on the simplex: two dimensions to integrate over.
    """
    node, weight = np.polynomial.legendre.leggauss(count)
    u, v = np.meshgrid((node + 1) / 2, (node + 1) / 2, indexing="ij")
    share = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)], -1).reshape(-1, 3)
    area = (2 * np.outer(weight, weight) / 4 * (1 - u)).ravel()

    def rule(points: Points, raw: list[Array]) -> tuple[Points, Array, Array | float]:
        y = np.exp(log_softmax((log_softmax(raw[0])[:, :, None] - np.log(share)) / temperature))
        return points.repeat(len(share)), y.reshape(len(y), -1, CLASSES), np.tile(area, raw[0].shape[1])

    return rule


class Oracle:
    """The terms of a tiny model's bounds for a batch of examples `[R, B, D]`, some of which may lack modalities."""

    def __init__(self, subject: Tiny, x: Mapping[str, torch.Tensor]) -> None:
        self.subject = subject
        self.inference, self.generative = FACTORS[subject.name]
        self.kinds = {m.name: m.distribution for m in subject.modalities}
        self.x = {name: v.double().numpy() for name, v in x.items()}
        lacking: Mapping[str, torch.Tensor] = getattr(x, "present", {})
        self.there = {m: np.ones_like(v) for m, v in self.x.items()}
        self.there |= {m: self.there[m] * rows.double().numpy()[..., None] for m, rows in lacking.items()}
        self.has_lacking = bool(lacking)
        if subject.name == "m2":  # [x;w] is its one variable
            self.kinds = {"x": next(iter(self.kinds.values()))}
            self.x = {"x": np.concatenate(list(self.x.values()), -1)}
            self.there = {"x": np.concatenate(list(self.there.values()), -1)}
        self.x |= {f"{m} is there": there for m, there in self.there.items()}
        self.replicas, self.batch = next(iter(self.x.values())).shape[:2]
        self.by_name = conditionals(subject.model)

    def name(self, letter: str, factor: str, modality: str = "") -> str:
        """`a|X` is q(a|x,w); `X|a` is p(x|a)."""
        variable, _, given = factor.partition("|")
        given = given.replace("X", ",".join(self.kinds))
        return f"{letter}({variable.replace('X', modality)}{'|' * bool(given)}{given})"

    def outputs(self, name: str, factor: str, values: Mapping[str, Array]) -> list[Array]:
        """The linear layers' outputs, of a distribution that is given what it is conditioned on and nothing else."""
        if self.subject.name.endswith("-kl") and factor.endswith("|X"):
            return self.posterior(name, values)
        return self.linear(name, factor, values)

    def linear(self, name: str, factor: str, values: Mapping[str, Array]) -> list[Array]:
        given = [m for v in factor.partition("|")[2].split(",") for m in (self.kinds if v == "X" else [v])]
        conditional: Conditional = self.by_name[name]
        with torch.no_grad():
            raw = conditional.parameters_of({m: torch.tensor(values[m], dtype=torch.float32) for m in given})
        return [v.double().numpy() for v in raw]

    def posterior(self, name: str, values: Mapping[str, Array]) -> list[Array]:
        """q(a|x_S): the joint encoder's where nothing is lacking, otherwise the encoders of S, combined."""
        variable, pooling, joint = name[2], self.subject.pooling, self.subject.joint_encoder
        there = {m: values[f"{m} is there"][..., :1] for m in self.kinds}
        precision = mean = number = np.zeros(())
        for m in self.kinds:
            mu, raw = self.linear(f"q({variable}|{m})", f"{variable}|{m}", values)
            precision = precision + there[m] / variance_of(raw)
            mean = mean + there[m] * mu / variance_of(raw)
            number = number + there[m]
        precision = precision + 1 if pooling == "product" else precision / number
        mean = mean / precision if pooling == "product" else mean / number / precision
        pooled = [mean, raw_of(1 / precision)]
        if not joint:
            return pooled
        complete = number == len(self.kinds)
        return [
            np.where(complete, a, b) for a, b in zip(self.linear(name, f"{variable}|X", values), pooled, strict=True)
        ]

    def points(self, rules: Mapping[str, Rule]) -> Points:
        """Draws the latent variables from the inference model, in order."""
        points = Points(np.ones((self.replicas, self.batch)), self.x)
        for factor in self.inference:
            raw = self.outputs(self.name("q", factor), factor, points.values)
            points, value, weight = rules[factor[0]](points, raw)
            points = points.having(factor[0], value, weight)
        return points

    def terms(self, points: Points) -> tuple[dict[str, Array], dict[str, Array]]:
        """log p and log q of every factor, averaged over the points of each example, `[R, B]`."""
        log_p: dict[str, Array] = {}
        log_q: dict[str, Array] = {}
        v = points.values
        for factor in self.generative:
            if factor.startswith("X"):
                for m, kind in self.kinds.items():
                    name = self.name("p", factor, m)
                    log_p[name] = log_observation(kind, v[m], self.outputs(name, factor, v), v[f"{m} is there"])
            elif factor == "y":
                log_p["p(y)"] = np.full(points.weight.shape, -math.log(CLASSES))
            elif factor == "z":
                log_p["p(z)"] = log_normal(v["z"], 0.0, 1.0)
            else:
                name = self.name("p", factor)
                mean, variance = self.outputs(name, factor, v)
                log_p[name] = log_normal(v[factor[0]], mean, variance_of(variance))
        for factor in self.inference:
            name = self.name("q", factor)
            raw = self.outputs(name, factor, v)
            if factor[0] == "y":
                log_q[name] = (v["y"] * log_softmax(raw[0])).sum(-1)
            else:
                log_q[name] = log_normal(v[factor[0]], raw[0], variance_of(raw[1]))
        return {k: self._mean(points, t) for k, t in log_p.items()}, {
            k: self._mean(points, t) for k, t in log_q.items()
        }

    def value(self, points: Points, labelled: bool = False) -> Array:
        """The bound, `[R, B]`."""
        log_p, log_q = self.terms(points)
        left_out = "q(y" if labelled else "-"
        return sum(log_p.values(), np.zeros(())) - sum(t for k, t in log_q.items() if not k.startswith(left_out))

    def _mean(self, points: Points, term: Array) -> Array:
        return (points.weight * term).reshape(self.replicas, self.batch, -1).sum(-1)

    def log_evidence(self, count: int, y: Array | None = None) -> Array:
        """log p(x), or log p(x, y), `[R, B]`: the generative model summed over y and integrated over z and a."""
        points = Points(np.ones((self.replicas, self.batch)), self.x)
        conditions = {factor[0]: factor for factor in self.generative}
        if "y" in conditions:
            if y is None:
                points = points.repeat(CLASSES).having(
                    "y", np.tile(np.eye(CLASSES), (self.replicas, self.batch, 1)), 1 / CLASSES
                )
            else:
                points = points.having("y", y, 1 / CLASSES)
        units = {factor[0]: self._units(factor) for factor in self.inference if factor[0] != "y"}
        zero = np.zeros((self.replicas, points.weight.shape[1], units["z"]))
        standard = [zero, zero + math.log(math.e - 1)]  # softplus of it is 1
        points, value, weight = on_grid(count)(points, standard)
        points = points.having("z", value, weight)
        if "a" in conditions:
            raw = self.outputs(self.name("p", conditions["a"]), conditions["a"], points.values)
            points, value, weight = on_grid(count)(points, raw)
            points = points.having("a", value, weight)
        log_x = np.zeros(points.weight.shape)
        for m, kind in self.kinds.items():
            name = self.name("p", conditions["X"], m)
            log_x += log_observation(kind, points.values[m], self.outputs(name, conditions["X"], points.values))
        return np.log(self._mean(points, np.exp(log_x)))

    def _units(self, factor: str) -> int:
        head: Any = self.by_name[self.name("q", factor)].heads[0]
        return int(head.weight.shape[-1])


def terms_of(bound: Any) -> dict[str, Any]:
    """All terms of a bound by name, as float64 arrays."""
    return {name: t.detach().double().numpy() for name, t in (*bound.log_p.items(), *bound.log_q.items())}
