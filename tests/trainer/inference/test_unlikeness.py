"""Unlikeness: distances against a naive computation, percentiles, and that a class never seen stands out."""

import numpy as np
import pytest
import torch

from trainer.inference.unlikeness import (
    LEAST_ROWS,
    NEIGHBOURS,
    Passes,
    make_reference,
    nearest,
    percentile_of,
    percentiles,
)

NAMES = ("x", "w")


def naive(latent: torch.Tensor, latents: torch.Tensor, skip: int) -> torch.Tensor:
    rows = []
    for one in latent:
        pairs = sorted(
            (float((one - other).norm()), float((one / one.norm() - other / other.norm()).norm())) for other in latents
        )
        rows.append(np.mean(pairs[skip : skip + NEIGHBOURS], axis=0))
    return torch.tensor(np.array(rows))


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("rows", [3, 12, 300, 640])
def test_distances_are_those_to_the_nearest(rows: int, skip: int) -> None:
    g = torch.Generator().manual_seed(rows)
    latents = torch.randn(2, rows, 3, generator=g)
    latent = latents[:, :3] if skip else torch.randn(2, 4, 3, generator=g)
    found = nearest(latent, latents, skip)
    assert found.shape == (2, latent.shape[1], 2)
    for r in range(2):
        torch.testing.assert_close(found[r], naive(latent[r], latents[r], skip).float(), atol=2e-3, rtol=2e-3)


def test_scores_are_sums_of_standardised_parts_and_means_over_replicas() -> None:
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 40, 3, generator=g)
    passes = Passes(latents, {"w": torch.rand(2, 40, generator=g)})
    reference = make_reference(passes, latents, NAMES)
    scores = reference.scores(passes, NAMES, skip=1)
    assert scores.shape == (40,)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    far = Passes(latents[:, :5] + 50, {"w": torch.rand(2, 5, generator=g) + 9})
    assert reference.scores(far, NAMES).min() > scores.max()
    without = make_reference(Passes(latents, {}), latents, NAMES)
    assert without.scores(Passes(latents[:, :5] + 50, {}), NAMES).min() > 3


def test_percentiles_rank_new_scores_among_known_ones() -> None:
    known = percentiles(np.arange(101, dtype=np.float64))
    ranks = percentile_of(np.array([-5, 0, 25.0, 100, 1e9]), known)
    np.testing.assert_allclose(ranks, [0, 0, 25, 100, 100])
    assert percentiles(np.zeros(LEAST_ROWS - 1)) == ()
