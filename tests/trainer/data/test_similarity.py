"""Rows made comparable: the cosines of all modalities alike, with principal components, of rows that lack some too."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.support.row_blocks import ROWS, points, reading
from trainer.data.similarity import COMPONENTS, comparable_rows
from trainer.nn.presence import given


def low_rank(width: int, rank: int, noise: float, rows: int = 600) -> tuple[Tensor, Tensor]:
    """Rows in a random subspace, and the same rows with noise in all directions."""
    signal = points(rank, 1, rows) @ points(width, 2, rank) / rank**0.5
    return signal, signal + noise * points(width, 3, rows)


def test_modalities_count_alike_however_wide_and_large_and_blocks_do_not_matter() -> None:
    x, w = 100 + 7 * points(30, 0), points(2, 1) / 9
    read = reading({"x": x, "w": w})
    whole = comparable_rows(read(ROWS))
    parts = [(value - value.mean(0)) / (value - value.mean(0)).square().sum(1).mean().sqrt() for value in (x, w)]
    torch.testing.assert_close(whole, normalize(torch.cat(parts, -1), dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(comparable_rows(read(7)), whole)


def test_wide_modalities_are_seen_through_their_principal_components() -> None:
    _, x = low_rank(width=200, rank=40, noise=0.3)
    read = reading({"x": x})
    found = comparable_rows(read(600))
    assert found.shape == (600, COMPONENTS)
    centred = x - x.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:40].T  # where noise begins, the axes are arbitrary
    exact = normalize(centred @ axes, dim=-1)
    assert (found @ found.T - exact @ exact.T).abs().max() < 0.1
    torch.testing.assert_close(comparable_rows(read(77)), found, rtol=1e-3, atol=1e-3)


def test_principal_components_leave_noise_out() -> None:
    signal, noisy = low_rank(width=400, rank=10, noise=1.0)
    error = []
    for rows in (comparable_rows(reading({"x": noisy})(600)), normalize(noisy - noisy.mean(0), dim=-1)):
        exact = normalize(signal - signal.mean(0), dim=-1)
        error.append(float((rows @ rows.T - exact @ exact.T).square().mean()))
    assert error[0] < error[1] / 2


@pytest.mark.parametrize("width", [40, 100])  # fewer features than components, and more
def test_rows_that_lack_modalities_are_similar_by_what_both_have(width: int) -> None:
    x, w = points(width, 0), 50 * points(width, 1)
    has = {"x": torch.arange(ROWS) % 3 != 0, "w": torch.arange(ROWS) % 3 != 1}
    x[~has["x"]], w[~has["w"]] = 0, 0
    read = reading({"x": x, "w": w}, has)
    rows = comparable_rows(read(ROWS))
    similarity = rows @ rows.T
    assert torch.equal(similarity[0, 1::3], torch.zeros(ROWS // 3))  # one has w alone, the others x alone
    complete = torch.arange(ROWS) % 3 == 2
    torch.testing.assert_close(similarity.diagonal(), torch.where(complete, 1.0, 0.5))
    if width < COMPONENTS:
        expected = torch.zeros(ROWS, ROWS)
        for m, value in (("x", x), ("w", w)):
            unit = normalize(value - value[has[m]].mean(0), dim=-1) * has[m][:, None]
            expected += unit @ unit.T / 2
        torch.testing.assert_close(similarity, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(comparable_rows(read(7)), rows, rtol=1e-3, atol=1e-3)
    alone = comparable_rows(lambda: (given(block, ["x"]) for block in read(ROWS)()))
    assert not alone[~has["x"]].any()
