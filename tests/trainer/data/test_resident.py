"""The order of the batches, which labels a run may see, and what each replica of a stack gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.shard import Shard
from tests.support.training import CPU, V, W, X, clusters, make_data, make_settings, make_shard, turns
from trainer.data.resident import load
from trainer.data.selection import Examples, choose_labelled, choose_modalities, labelled_share, leaves_unlabelled
from trainer.data.streams import Stream

# --- the order of the batches ----------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.integers(0, 10**9), min_size=1, max_size=30, unique=True),
    batch=st.integers(1, 70),
    seed=st.integers(0, 2**40),
)
def test_every_row_comes_once_in_every_pass(rows: list[int], batch: int, seed: int) -> None:
    stream = Stream(np.array(rows), batch, seed, "unlabelled")
    passes = 4
    steps = -(-passes * len(rows) // batch)
    batches = [stream.batch(step) for step in range(steps)]
    assert all(len(rows_of_batch) == batch for rows_of_batch in batches)
    drawn = np.concatenate(batches)[: passes * len(rows)].reshape(passes, len(rows))
    for one_pass in drawn:
        assert sorted(one_pass) == sorted(rows)


def test_a_batch_is_a_function_of_seed_name_and_step_alone() -> None:
    rows = np.arange(100, 123)
    forward = Stream(rows, 10, 5, "unlabelled")
    expected = [forward.batch(step) for step in range(40)]
    backward = Stream(rows, 10, 5, "unlabelled")
    for step in reversed(range(40)):
        assert (backward.batch(step) == expected[step]).all()
    assert (Stream(rows, 10, 5, "unlabelled").batch(17) == expected[17]).all()
    assert not all((Stream(rows, 10, 6, "unlabelled").batch(step) == expected[step]).all() for step in range(3))
    assert not all((Stream(rows, 10, 5, "labelled").batch(step) == expected[step]).all() for step in range(3))


def test_passes_differ_and_follow_each_other_within_a_batch() -> None:
    rows = np.arange(50)
    one_a_step = Stream(rows, 50, 0, "labelled")
    passes = [one_a_step.batch(step) for step in range(3)]
    assert not (passes[0] == passes[1]).all()
    assert not (passes[1] == passes[2]).all()
    crossing = Stream(rows, 120, 0, "labelled").batch(0)  # two passes and the beginning of a third
    assert (crossing == np.concatenate([passes[0], passes[1], passes[2][:20]])).all()


# --- which labels ----------------------------------------------------------------------------------------------------


def many(tmp_path: Path, labels: list[int], **changes: Any) -> Shard:
    return make_shard(tmp_path / "shard.h5", train=clusters("train", labels, (X, W)), **changes)


def labelled(shard: Shard, labels: object, seed: int = 0) -> np.ndarray:
    return choose_labelled(make_settings("ssmvae", shard, labels=labels, seed=seed), shard)


def test_labels_are_equal_per_class_and_the_remainder_is_spread_by_the_seed(tmp_path: Path) -> None:
    shard = many(tmp_path, [0] * 30 + [1] * 40 + [2] * 20 + [-1] * 10)
    for seed in range(5):
        rows = labelled(shard, 12, seed)
        assert np.bincount(shard.train.labels[rows]).tolist() == [4, 4, 4]
        assert (np.diff(rows) > 0).all()
    one_more = {tuple(np.bincount(shard.train.labels[labelled(shard, 13, seed)])) for seed in range(30)}
    assert one_more == {(5, 4, 4), (4, 5, 4), (4, 4, 5)}
    two_more = {tuple(np.bincount(shard.train.labels[labelled(shard, 14, seed)])) for seed in range(30)}
    assert two_more == {(5, 5, 4), (5, 4, 5), (4, 5, 5)}


def test_labels_are_a_function_of_the_seed(tmp_path: Path) -> None:
    shard = many(tmp_path, turns(90))
    assert (labelled(shard, 9, 3) == labelled(shard, 9, 3)).all()
    assert len({tuple(labelled(shard, 9, seed)) for seed in range(10)}) == 10
    other_model = choose_labelled(make_settings("sshmvae-kl", shard, labels=9, seed=3, alpha=2, epochs=7), shard)
    assert (other_model == labelled(shard, 9, 3)).all()


def test_all_labels_are_all_known_ones(tmp_path: Path) -> None:
    shard = many(tmp_path, [-1, 0, 1, -1, 2, 2, -1, 0])
    assert labelled(shard, "all").tolist() == [1, 2, 4, 5, 7]
    assert leaves_unlabelled(make_settings("ssmvae", shard, labels="all"), shard)
    full = make_shard(tmp_path / "full.h5")
    assert labelled(full, "all").tolist() == list(range(40))
    assert not leaves_unlabelled(make_settings("ssmvae", full, labels="all"), full)
    assert leaves_unlabelled(make_settings("jmvae", full, labels="all"), full)


def test_the_shards_own_labels(tmp_path: Path) -> None:
    train = clusters("train", turns(20), (X, W))
    train.labelled = np.isin(np.arange(20), [1, 4, 6, 8, 19])
    marked = make_shard(tmp_path / "marked.h5", train=train)
    assert labelled(marked, "shard", seed=0).tolist() == [1, 4, 6, 8, 19]
    assert labelled(marked, "shard", seed=9).tolist() == [1, 4, 6, 8, 19]
    plain = make_shard(tmp_path / "plain.h5")
    with pytest.raises(UsageError, match="marks no labelled examples") as caught:
        labelled(plain, "shard")
    assert str(plain.path) in caught.value.message


def test_as_many_labels_as_there_are(tmp_path: Path) -> None:
    shard = many(tmp_path, [0, 0, 1, 1, 2, 2, -1])
    assert labelled(shard, 6).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r"9 labels need 3 of class 'cup', which has 2$") as caught:
        labelled(shard, 9)
    assert str(shard.path) in caught.value.message
    assert "--labels all" in str(caught.value.hint)


def test_fewer_labels_than_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^2 labels cannot cover 3 classes$"):
        labelled(many(tmp_path, turns(9)), 2)


@pytest.mark.parametrize("labels", [3, "all", "shard"])
def test_a_class_without_a_label(tmp_path: Path, labels: object) -> None:
    train = clusters("train", [0, 0, 0, 2, 2, 2, -1], (X, W))
    train.labelled = np.asarray(train.labels) >= 0
    shard = make_shard(tmp_path / "shard.h5", train=train)
    with pytest.raises(DataError, match=r"'?bowl") as caught:
        labelled(shard, labels)
    assert str(shard.path) in caught.value.message


def test_a_test_set_without_a_label(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", test=clusters("test", [-1, -1], (X, W)))
    with pytest.raises(DataError, match="no test example has a label"):
        make_data([make_settings("ssmvae", shard)], shard)


# --- who gets which rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [6, "all"])
def test_labelled_unlabelled_and_test_are_disjoint_and_complete(tmp_path: Path, labels: object) -> None:
    train = clusters("train", [-1, 0, 1, 2] * 8, (X, W))
    test = clusters("test", [0, -1, 1, 2, 2], (X, W), seed=1)
    shard = make_shard(tmp_path / "shard.h5", train=train, test=test)
    (examples,) = make_data([make_settings("ssmvae", shard, labels=labels)], shard).examples
    assert sorted([*examples.labelled, *examples.unlabelled]) == list(range(32))
    assert examples.test.tolist() == [32, 34, 35, 36]  # after the training rows; row 33 has no label to compare with
    assert set(np.arange(0, 32, 4)) <= set(examples.unlabelled)
    assert examples.labelled_ids == tuple(f"train-{row}" for row in examples.labelled)


def test_a_model_without_labels_learns_from_every_row(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (examples,) = make_data([make_settings("jmvae", shard)], shard).examples
    assert examples.unlabelled.tolist() == list(range(40))
    assert len(examples.labelled) == 6  # for the probe
    (other,) = make_data([make_settings("ssmvae", shard)], shard).examples
    assert (examples.labelled == other.labelled).all()


def test_shards_of_different_lengths_give_each_replica_what_it_gets_alone(tmp_path: Path) -> None:
    parts = {
        "a": make_shard(tmp_path / "a.h5", split=0),
        "b": make_shard(
            tmp_path / "b.h5",
            split=1,
            train=clusters("b", turns(25), (X, W), seed=5),
            test=clusters("c", turns(31), (X, W), seed=6),
        ),
    }
    order = ["a", "b", "a", "b"]
    stack = [make_settings("ssmvae", parts[name], seed=seed) for seed, name in enumerate(order)]
    data = load(stack, [parts[name] for name in order], CPU)
    assert len(data.label) == 40 + 12 + 25 + 31  # a shard that two replicas share is there once
    for r, name in enumerate(order):
        alone = load(stack[r : r + 1], [parts[name]], CPU)
        for field in ("labelled", "unlabelled", "test"):
            stacked_rows = torch.from_numpy(getattr(data.examples[r], field))
            alone_rows = torch.from_numpy(getattr(alone.examples[0], field))
            assert (data.label[stacked_rows] == alone.label[alone_rows]).all()
            for m in ("x", "w"):
                assert (data.features[m][stacked_rows] == alone.features[m][alone_rows]).all()
        assert data.examples[r].labelled_ids == alone.examples[0].labelled_ids
        assert labelled_share(data.examples)[r] == labelled_share(alone.examples)[0]
    assert labelled_share(data.examples).tolist() == pytest.approx([6 / 40, 6 / 25] * 2)


def test_a_batch_of_a_stack_is_what_the_shard_holds(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    data = make_data([make_settings("ssmvae", shard, seed=seed) for seed in range(2)], shard)
    index = torch.tensor([[0, 41, 7], [51, 39, 1]])
    rows = np.concatenate([shard.train.labels, shard.test.labels])
    assert data.y(index).tolist() == np.eye(3)[rows[index.numpy()]].tolist()
    for name, x in data.x(index).items():
        whole = np.concatenate([shard.train.features(name), shard.test.features(name)])
        assert x.shape == (2, 3, whole.shape[1])
        assert (x.numpy() == whole[index.numpy()]).all()


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    here = make_shard(tmp_path / "here.h5")
    unlike: dict[str, dict[str, Any]] = {
        "classes.h5": {"classes": ("cup", "bowl", "fork")},
        "widths.h5": {"modalities": (X,), "train": clusters("t", turns(9), (X,)), "test": clusters("u", [0], (X,))},
    }
    for name, changes in unlike.items():
        other = make_shard(tmp_path / name, **changes)
        with pytest.raises(DataError, match="cannot share a stack") as caught:
            load([make_settings("ssmvae", here), make_settings("ssmvae", other)], [here, other], CPU)
        assert str(other.path) in caught.value.message


def test_a_stack_where_only_some_replicas_have_unlabelled_rows(tmp_path: Path) -> None:
    full = make_shard(tmp_path / "full.h5")
    partly = make_shard(tmp_path / "partly.h5", train=clusters("train", [-1, *turns(39)], (X, W)))
    stack = [make_settings("ssmvae", shard, labels="all") for shard in (full, partly)]
    with pytest.raises(DataError, match="cannot share a stack"):
        load(stack, [full, partly], CPU)


def test_modalities_are_chosen_by_name_and_in_the_order_asked_for(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    assert choose_modalities(shard, ()) == (X, W, V)
    assert choose_modalities(shard, ("v", "x")) == (V, X)
    data = make_data([make_settings("ssmvae", shard, modalities=("v", "x"))], shard)
    assert list(data.features) == ["v", "x"]
    assert data.modalities == (V, X)
    with pytest.raises(UsageError, match="has no modality 'sound'") as caught:
        choose_modalities(shard, ("x", "sound"))
    assert "x, w, v" in str(caught.value.hint)


def test_examples_are_recorded_by_id(tmp_path: Path) -> None:
    ids = [f"frame/{row:03}.png" for row in range(40)][::-1]
    train = clusters("train", turns(40), (X, W))
    train.ids = ids
    shard = make_shard(tmp_path / "shard.h5", train=train)
    examples: Examples = make_data([make_settings("ssmvae", shard, labels=9)], shard).examples[0]
    assert examples.labelled_ids == tuple(ids[row] for row in examples.labelled)
