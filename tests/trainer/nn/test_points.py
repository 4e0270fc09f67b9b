"""Points of a distribution, which are samples with fixed noise."""

import pytest
import torch

from trainer.nn.distributions import DiagonalNormal
from trainer.nn.rng import Noise

R = 2  # replicas


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_points_are_fixed_samples_in_pairs_around_the_mean(count: int) -> None:
    mean, variance = torch.tensor([[1.5, -2.0], [0.5, 7.0]]), torch.tensor([[0.3, 4.0], [1.0, 0.01]])
    q = DiagonalNormal(mean.expand(R, 2, 2), variance.expand(R, 2, 2), Noise([0] * R))
    points = torch.stack(list(q.points(count)))
    assert points.shape == (count, R, 2, 2)
    assert torch.equal(points, torch.stack(list(q.points(count))))
    standard = (points - mean) / variance.sqrt()
    assert torch.allclose(standard, standard[:, :1, :1].expand_as(standard), atol=1e-4)  # for every row and replica
    half = count // 2
    assert torch.allclose(standard[:half], -standard[count - half :], atol=1e-4)
    if count == 1000:
        assert torch.allclose(points.mean(0), mean.expand(R, 2, 2), atol=1e-4)
        assert torch.allclose(points.var(0) / variance, torch.ones(R, 2, 2), atol=0.1)
