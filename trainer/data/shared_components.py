"""What the modalities of a row share, as one vector: it leaves out what only one of them sees, such as its noise.

Canonical correlation analysis of all modalities (MAXVAR, Kettenring 1971) in random features of a Gaussian kernel
(Rahimi and Recht 2007; Lopez-Paz et al. 2014), with the ridge of Bach and Jordan 2002:

    f_m = [cos(x_m W_m + b_m), 1]                            [F], of the principal components of x_m
    C_mm' = E[f_m f_m'^T]                                    over the rows that have both
    L_m L_m^T = C_mm + ridge I
    R_mm' = L_m^-1 C_mm' L_m'^-T,  R_mm = I                  R [M F, M F]; its eigenvectors u = [u_1; ...; u_M]
    s = (lambda - 1) / (M - 1) * sum_m u_m^T L_m^-1 f_m      for each of the largest eigenvalues lambda but the first

(lambda - 1) / (M - 1) is the mean correlation of what two modalities say of a component. The first one is the constant,
on which they agree entirely; the others are uncorrelated with it, so nothing needs to be centred. Where the modalities
are views of the same thing, s tells things apart and knows no view's noise. Where each sees what the others cannot, s
is blind to it, and all modalities joined (`trainer.data.similarity`) tell more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad, threshold

from trainer.data.similarity import Read, Scale, reduced_rows, scales_of
from trainer.nn.presence import present_rows, zeros_where_absent

COMPONENTS = 256
FEATURES = 4000  # of all modalities; twice as many gain half a point on MNIST, in six times the time
_RIDGE = 0.25  # times the mean squared length of f_m, over the number of rows that have m and another modality
_ITERATIONS, _SPARE = 8, 20
_LEAST_RIDGE, _LEAST_CORRELATION = 1e-6, 1e-3  # below it, rounding alone
_TINY = 1e-30


def shared_components(read: Read, check: Callable[[], None] = lambda: None) -> Tensor:
    """A vector of unit length for each row, `[N, d]`; the product of two is the similarity of what is shared.

    A row with one modality alone has what this one says of it. All vectors are zero if no row has two modalities.

    Args:
        read: yields the rows of two or more modalities, as for `comparable_rows`; it is called seven times.
        check: is called between pieces of the work, and may raise.
    """
    reduced = reduced_rows(read)
    features = _random_features(scales_of(reduced()))
    weights = _weights(_products(reduced, features, check))
    return torch.cat([normalize(_of_rows(block, features) @ weights, dim=-1) for block in reduced()])


class _Cosines:
    """Random features of a Gaussian kernel, and 1: x `[n, D]` to [cos(x W + b), 1] `[n, F]`."""

    def __init__(self, inputs: int, features: int, width: Tensor, source: torch.Generator) -> None:
        frequencies = torch.empty(inputs, features - 1).normal_(generator=source)
        self.frequencies = frequencies.to(width.device) / width.clamp_min(_TINY)
        self.phases = torch.empty(features - 1).uniform_(0, 2 * math.pi, generator=source).to(width.device)

    def __call__(self, x: Tensor) -> Tensor:
        return pad(torch.cos(x @ self.frequencies + self.phases), (0, 1), value=1)


def _random_features(scales: Mapping[str, Scale]) -> dict[str, _Cosines]:
    """Those of each modality, from a fixed start. The kernel is as wide as two rows are apart (root mean square)."""
    source = torch.Generator().manual_seed(0)
    features = min(FEATURES // len(scales), max(scale.rows for scale in scales.values()) + 1)
    return {m: _Cosines(len(scale.mean), features, math.sqrt(2) * scale.length, source) for m, scale in scales.items()}


def _of_rows(block: Mapping[str, Tensor], features: Mapping[str, _Cosines]) -> Tensor:
    """All f_m of a block's rows, `[n, M F]`; zeros where a row lacks m."""
    return torch.cat([zeros_where_absent(present_rows(block, m), f(block[m])) for m, f in features.items()], -1)


def _products(read: Read, features: Mapping[str, _Cosines], check: Callable[[], None]) -> Tensor:
    """The sums of f_m f_m'^T over all rows, `[M, F, M, F]`, float64."""
    total: Tensor | None = None
    for block in read():
        check()
        f = _of_rows(block, features)
        products = (f.T @ f).double()
        total = products if total is None else total.add_(products)
    assert total is not None  # no shard is empty
    modalities = len(features)
    return total.view(modalities, len(total) // modalities, modalities, -1)


def _weights(products: Tensor) -> Tensor:
    """What maps all f_m to s, `[M F, d]`."""
    modalities, features = products.shape[:2]
    number = products[:, -1:, :, -1:].clamp_min(1)  # the products of the ones count the rows that have both
    covariance = products / number
    roots = [_root(covariance[m, :, m], float(number[m].min())) for m in range(modalities)]
    values, vectors = _largest(_correlation(covariance, roots), min(COMPONENTS + 1, features))
    agreed = threshold((values - 1) / (modalities - 1), _LEAST_CORRELATION, 0)
    unwhitened = [
        torch.linalg.solve_triangular(root.T, part.double(), upper=True)
        for root, part in zip(roots, vectors.unflatten(0, (modalities, features)), strict=True)
    ]
    return (torch.cat(unwhitened) * agreed)[:, 1:].float()


def _root(covariance: Tensor, rows: float) -> Tensor:
    """L of C_mm and its ridge, `[F, F]`; the fewer rows it is compared in, the larger the ridge."""
    ridge = (_RIDGE * covariance.trace() / rows).clamp_min(_LEAST_RIDGE)
    root: Tensor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)).to(covariance))
    return root


def _correlation(covariance: Tensor, roots: Sequence[Tensor]) -> Tensor:
    """R `[M F, M F]`, float32."""
    modalities, features = covariance.shape[:2]
    correlation = torch.eye(modalities * features, device=covariance.device)
    blocks = correlation.view(modalities, features, modalities, features)
    for first, second in permutations(range(modalities), 2):
        half = torch.linalg.solve_triangular(roots[first], covariance[first, :, second], upper=False)
        blocks[first, :, second] = torch.linalg.solve_triangular(roots[second].T, half, upper=True, left=False)
    return correlation


def _largest(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a positive semidefinite matrix, and their vectors, by subspace iteration."""
    basis = torch.empty(len(matrix), min(count + _SPARE, len(matrix)))
    basis.normal_(generator=torch.Generator().manual_seed(0))
    basis = basis.to(matrix)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ basis).Q
    values, turned = torch.linalg.eigh(basis.T @ matrix @ basis)
    return values.flip(0)[:count], (basis @ turned.flip(1))[:, :count]
