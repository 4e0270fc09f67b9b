"""The parts that a run's labels are divided into: each label is left out once, and classes stay as equal as can be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.shard import Shard
from tests.support.training import CLASSES, X, clusters, make_settings, make_shard
from trainer.data.selection import choose_labelled, chosen_rows, parts_of_labels


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    """Twenty rows of the first class, ten of the second, one of the third."""
    labels = [0] * 20 + [1] * 10 + [2]
    folder: Path = tmp_path_factory.mktemp("selection")
    return make_shard(folder / "clusters.h5", [X], train=clusters("train", labels, [X]))


@given(parts=st.integers(2, 12), seed=st.integers(0, 1000))
def test_each_label_is_left_out_once_unless_it_is_alone(shard: Shard, parts: int, seed: int) -> None:
    settings = make_settings("ssmvae", shard, labels="all", seed=seed)
    part, rows = parts_of_labels(settings, shard, parts)
    assert np.array_equal(rows, chosen_rows(settings, shard))
    for k in range(len(CLASSES)):
        sizes = np.bincount(part[shard.train.labels[rows] == k] + 1, minlength=parts + 1)
        if k == 2:
            assert sizes[0] == 1
            continue
        assert sizes[0] == 0
        assert sizes[1:].max() - sizes[1:].min() <= 1
    left = [
        choose_labelled(settings.model_copy(update={"held_out": (number, parts)}), shard) for number in range(parts)
    ]
    for number, kept in enumerate(left):
        assert np.array_equal(np.setdiff1d(rows, kept), rows[part == number])
