"""What modalities share: against a dense eigenproblem, without their noise, in blocks, with rows that lack some."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.support.row_blocks import points, reading
from trainer.data import shared_components as module
from trainer.data.shared_components import shared_components
from trainer.data.similarity import comparable_rows, reduced_rows, scales_of


def views(rows: int, noise: float, count: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    """Modalities that see the same three clusters through different maps, each with noise of its own; the clusters."""
    cluster = torch.arange(rows) % 3
    centre = 3 * torch.eye(3)[cluster]
    maps = [points(12, seed, 3) for seed in range(count)]
    return {f"m{k}": centre @ maps[k] + noise * points(12, 10 + k, rows) for k in range(count)}, cluster


def apart(rows: Tensor, cluster: Tensor) -> float:
    """The mean similarity within clusters less that between them."""
    similarity, same = rows @ rows.T, cluster[:, None] == cluster[None]
    return float(similarity[same].mean() - similarity[~same].mean())


@pytest.mark.parametrize("count", [2, 3])
def test_it_is_the_generalised_eigenproblem(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """C v = lambda D v with D the diagonal blocks of C and their ridges, by SciPy; s from its eigenvectors."""
    monkeypatch.setattr(module, "FEATURES", 20 * count)
    monkeypatch.setattr(module, "_ITERATIONS", 400)
    features, _ = views(300, noise=1.0, count=count)
    read = reading(features)(300)
    found = shared_components(read)
    reduced = reduced_rows(read)
    maps = module._random_features(scales_of(reduced()))
    (block,) = reduced()
    f = np.concatenate([maps[m](x).double().numpy() for m, x in block.items()], -1)
    c = f.T @ f / 300
    d = np.zeros_like(c)
    for start in range(0, len(c), 20):
        of_m = slice(start, start + 20)
        d[of_m, of_m] = c[of_m, of_m] + 0.25 * np.trace(c[of_m, of_m]) / 300 * np.eye(20)
        c[of_m, of_m] = d[of_m, of_m]
    values, vectors = scipy.linalg.eigh(c, d)
    agreed = np.maximum(values[::-1] - 1, 0) / (count - 1)
    s = torch.from_numpy((f @ (vectors[:, ::-1] * agreed))[:, 1:20])
    expected = normalize(s, dim=-1)
    torch.testing.assert_close((found @ found.T).double(), expected @ expected.T, rtol=1e-3, atol=1e-3)


def test_what_varies_in_each_modality_for_itself_is_left_out() -> None:
    """As lighting does in a colour picture: here three directions of a modality, twice as large as the clusters."""
    features, cluster = views(900, noise=0.3)
    for seed, m in enumerate(features):
        features[m] += 6 * points(3, 20 + seed, 900) @ points(12, 30 + seed, 3)
    read = reading(features)(900)
    assert apart(comparable_rows(read), cluster) < 0.3
    assert apart(shared_components(read), cluster) > 0.9


def test_what_one_modality_alone_sees_is_left_out_too() -> None:
    """The documented limit: there, all modalities joined tell more."""
    features, cluster = views(900, noise=0.3)
    features["m1"] = points(12, 30, 900)  # knows nothing of the clusters
    read = reading(features)(900)
    assert apart(shared_components(read), cluster) < apart(comparable_rows(read), cluster) / 2


def test_blocks_do_not_matter() -> None:
    features, _ = views(200, noise=1.0)
    read = reading(features)
    whole = shared_components(read(200))
    assert whole.shape == (200, 200)  # no more than there are rows
    torch.testing.assert_close(shared_components(read(33)) @ whole.T, whole @ whole.T, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(200))


def test_a_row_with_one_modality_is_near_its_cluster() -> None:
    features, cluster = views(600, noise=0.5)
    has = {"m0": torch.arange(600) % 5 != 0, "m1": torch.arange(600) % 7 != 3}
    has["m1"] |= ~has["m0"]
    for m, rows in has.items():
        features[m][~rows] = 0
    found = shared_components(reading(features, has)(600))
    assert torch.isfinite(found).all()
    for lacking in (~has["m0"], ~has["m1"]):
        similarity = found[lacking] @ found[has["m0"] & has["m1"]].T
        same = cluster[lacking][:, None] == cluster[has["m0"] & has["m1"]][None]
        assert similarity[same].mean() > similarity[~same].mean() + 0.5


def test_nothing_shared_is_no_obstacle() -> None:
    nobody_has_both = torch.arange(60) % 2 == 0
    features = {"x": points(5, 0), "w": points(4, 1)}
    for m, rows in (("x", nobody_has_both), ("w", ~nobody_has_both)):
        features[m][~rows] = 0
    apart_rows = reading(features, {"x": nobody_has_both, "w": ~nobody_has_both})(60)
    constant = reading({"x": torch.ones(60, 5), "w": torch.zeros(60, 4)})(60)
    assert not shared_components(apart_rows).any()
    assert torch.isfinite(shared_components(constant)).all()


def test_it_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    features, _ = views(60, noise=1.0)
    with pytest.raises(KeyboardInterrupt):
        shared_components(reading(features)(20), stop)
