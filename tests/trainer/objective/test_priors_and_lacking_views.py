"""p(y) of other frequencies in every bound, and the terms beyond the paper where rows lack some of the views."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tests.support.training import make_settings, make_shard, make_step
from trainer.models.interface import Model
from trainer.objective.regularisers import agreement, propagated_labels
from trainer.objective.views import View


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_the_prior_is_in_every_bound(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    for model in ("m2", "ssmvae", "sshmvae", "sshmvae-kl", "sdgm"):
        modalities = ("x",) if model in ("m2", "sdgm") else ()
        step = make_step([make_settings(model, shard, prior=[0.6, 0.3, 0.1], modalities=modalities)], shard)
        step.batches.load(0)
        index = step.batches.index_l
        assert index is not None
        y = step.data.y(index)
        bound = cast(Model, step.model).bound(step.data.x(index), y)
        torch.testing.assert_close(bound.log_p["p(y)"], (y * torch.tensor([0.6, 0.3, 0.1]).log()).sum(-1))


def test_views_that_rows_lack_do_not_count() -> None:
    log_q, other = draws(2, 50, 3), draws(2, 50, 3, seed=1)
    rows = torch.arange(50).expand(2, -1) % 3 > 0
    some = agreement([View(log_q), View(other, rows)])
    chosen = [View(values[rows].view(2, -1, 3)) for values in (log_q, other)]
    torch.testing.assert_close(some, agreement(chosen))
    soft = draws(2, 50, 3, seed=2).exp()
    counted = propagated_labels([View(log_q), View(other, rows)], soft)
    apart = propagated_labels([View(log_q)], soft) + propagated_labels(
        [View(other[rows].view(2, -1, 3))], soft[rows].view(2, -1, 3)
    ) * rows.float().mean(-1)
    torch.testing.assert_close(counted, apart)
