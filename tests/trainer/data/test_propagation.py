"""Propagated labels against dense algebra by hand, and the same whether the rows are in memory or on disk."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.shards.shard import Modality, Shard
from pipeline.shards.writing import PartData
from tests.support.row_blocks import points
from tests.support.streamed_data import numbered, streamed, streaming_settings
from tests.support.training import CPU, W, X, clusters, holey_shard, make_settings, make_shard, turns
from trainer.data import propagation
from trainer.data.neighbour_graph import mean_graph, neighbour_graph
from trainer.data.propagation import (
    JOINED,
    MEAN,
    SHARED,
    USUAL,
    blended,
    candidate_graphs,
    choose,
    held_out,
    held_out_errors,
    propagate,
    propagated_labels,
)
from trainer.data.similarity import comparable_rows
from trainer.data.streaming import load
from trainer.nn.labels import one_hot, sharpened


def test_in_the_limit_it_is_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zhou et al. 2004, eq. 5: F = (1 - alpha) (I - alpha S)^-1 Y."""
    monkeypatch.setattr(propagation, "ITERATIONS", 4000)
    graph, rows, given = neighbour_graph(points(6, 0, 40), 5), torch.tensor([3, 11, 19, 30]), torch.tensor([0, 1, 1, 2])
    soft = propagate(graph, rows, one_hot(given, 3))
    labels = torch.zeros(40, 3)
    labels[rows, given] = torch.tensor([1.0, 0.5, 0.5, 1.0])  # every class weighs the same
    spread = 0.01 * torch.linalg.solve(torch.eye(40) - 0.99 * graph.to_dense(), labels)
    spread = spread / spread.sum(0)
    expected = spread / spread.sum(1, keepdim=True)
    others = torch.tensor([row for row in range(40) if row not in rows.tolist()])
    torch.testing.assert_close(soft[others], expected[others], rtol=1e-3, atol=1e-4)
    assert torch.equal(soft[rows], one_hot(given, 3))  # labelled rows keep their labels


def test_two_labels_name_two_rings_and_a_row_that_none_reaches_has_no_opinion() -> None:
    angle = torch.linspace(0, 2 * torch.pi, 61)[:-1]
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    none = torch.zeros(60, 2)
    lonely = torch.zeros(4, 6)
    lonely[:, 4:] = 1 + points(2, 0, 4).abs()
    x = torch.cat([torch.cat([ring, none, none], 1), torch.cat([none, ring, none], 1), lonely])
    soft = propagate(neighbour_graph(x, 3), torch.tensor([0, 60]), torch.eye(2))
    assert (soft[:60].argmax(1) == 0).all()
    assert (soft[60:120].argmax(1) == 1).all()
    assert torch.equal(soft[120:], torch.full((4, 2), 0.5))


def test_constant_features_are_no_obstacle() -> None:
    soft = propagate(neighbour_graph(torch.zeros(6, 3), 3), torch.tensor([0, 1]), torch.eye(2))
    assert torch.equal(soft[2:], torch.full((4, 2), 0.5))


def test_every_label_is_held_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    label = one_hot(torch.tensor([0, 1, 1, 0, 2, 2, 0, 1, 2, 0]), 3)
    rows, seen, expected = torch.arange(3, 13), [], label.clone()

    def remembering(graph: Tensor, known: Tensor, labels: Tensor) -> Tensor:
        assert (labels.sum(0) > 0).all()  # every class keeps a label
        out = sorted(set(rows.tolist()) - set(known.tolist()))
        seen.extend(out)
        soft = propagate(graph, known, labels)
        for row in out:
            expected[row - 3] = soft[row]
        return soft

    monkeypatch.setattr(propagation, "propagate", remembering)
    graph = neighbour_graph(points(6, 0, 40), 5)
    soft = held_out(graph, rows, label)
    assert sorted(seen) == rows.tolist()
    assert torch.equal(soft, expected)
    assert torch.equal(held_out(graph, rows[:5], label[:5]), label[:5])  # the third class has one label only


def test_a_graphs_errors_do_not_depend_on_how_sure_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    label, truth = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0.7, 0.2, 0.1])
    sure = torch.stack([truth.roll(k) for k in (0, 1, 2, 1)])  # the last one is wrong
    monkeypatch.setattr(propagation, "held_out", lambda graph, *_: sharpened(sure, graph.item()))
    errors = [held_out_errors(torch.tensor(s), torch.arange(4), label) for s in (1.0, 0.5, 0.25)]
    for error in errors[1:]:
        torch.testing.assert_close(error, errors[0])
    assert errors[0].argmax() == 3


@pytest.mark.parametrize(
    ("usual", "alone", "chosen"),
    [
        ([1.0] * 10, [0.5] * 10, "x"),
        ([1.0] * 10, [0.5] * 2 + [1.0] * 8, ""),  # one less may be chance: a standard error of 0.7
        ([1.0] * 10, [0.5] * 3 + [1.0] * 7, "x"),  # one and a half, and a standard error of 0.9
        ([1.0] * 10, [0.5] * 7 + [1.5] * 3, ""),  # two, and a standard error of 1.6
        ([1.0] * 10, [0.5] * 8 + [1.5] * 2, "x"),  # three, and a standard error of 1.6
        ([2.0] + [0.1] * 9, [0.0] * 10, ""),  # one label says nearly all
        ([0.5] * 10, [1.0] * 10, ""),
        ([0.0] * 10, [0.0] * 10, ""),
    ],
)
def test_another_graph_must_be_clearly_better(
    usual: list[float], alone: list[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {name: neighbour_graph(points(6, seed, 40), 3) for seed, name in enumerate((USUAL, "x"))}
    errors = {id(graphs[USUAL]): usual, id(graphs["x"]): alone}
    monkeypatch.setattr(propagation, "held_out_errors", lambda graph, *_: torch.tensor(errors[id(graph)]))
    assert choose(graphs, torch.arange(10), torch.zeros(10, 3)) == chosen


@pytest.mark.parametrize("noisy", ["x", "w"])
def test_labels_choose_the_graph_of_one_modality_where_the_other_is_noise(noisy: str, tmp_path: Path) -> None:
    """Each class is four of twelve small clusters on a circle, which noise of the same size mixes up."""
    rng, cluster = np.random.default_rng(0), np.arange(240) % 12
    angle = cluster * np.pi / 6 + 0.05 * rng.standard_normal(240)
    clean, noise = np.stack([np.cos(angle), np.sin(angle)], 1), rng.standard_normal((240, 2))
    features = {name: noise if name == noisy else clean for name in ("x", "w")}
    train = PartData(features, cluster % 3, [f"train-{row}" for row in range(240)])
    modalities = tuple(Modality(name, 2, "gaussian") for name in features)
    test = clusters("test", turns(12), modalities)
    shard = make_shard(tmp_path / "shard.h5", modalities, train=train, test=test)
    data = load([make_settings("ssmvae", shard, labels=90)], [shard], CPU)
    labelled = torch.from_numpy(data.examples[0].labelled)
    both = neighbour_graph(comparable_rows(lambda: data.training_features(0)), 5)
    joint = propagate(both, labelled, one_hot(data.label[labelled], 3))
    assert right(joint, shard) < 0.9
    assert right(propagated_labels(data, 5)[0], shard) > 0.99


@pytest.mark.parametrize(("joined", "shared", "weight"), [(0.9, 0.9, 1), (0.9, 0.6, 1), (0.6, 0.8, 0.5), (0.1, 0.8, 0)])
def test_what_is_shared_counts_where_it_is_surer(
    joined: float, shared: float, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = [neighbour_graph(points(6, seed, 40), 3) for seed in range(2)]
    sure = {id(graph): c for graph, c in zip(graphs, (joined, shared), strict=True)}

    def spread(graph: Tensor, *_: Tensor) -> Tensor:
        q = (1 + sure[id(graph)] ** 0.5) / 2  # of which certainty is c
        return torch.tensor([[q, 1 - q]]).repeat(40, 1).index_fill(0, torch.tensor([0]), 0.5)  # not of the labelled row

    monkeypatch.setattr(propagation, "propagate", spread)
    result = blended(graphs[0], graphs[1], torch.tensor([0]), torch.eye(2)[:1])
    torch.testing.assert_close(result.to_dense(), mean_graph(graphs, [weight, 1 - weight]).to_dense())


def test_another_graph_may_be_chosen_where_there_are_several_modalities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"x": ["x"], "both": ["x", "w"]}
    found = {}
    for name, modalities in settings.items():
        shard = make_shard(tmp_path / f"{name}.h5", [m for m in (X, W) if m.name in modalities])
        data = load([make_settings("ssmvae", shard)], [shard], CPU)
        found[name] = candidate_graphs(partial(data.training_features, 0), data, 5, lambda: None)
    assert list(found["x"]) == [USUAL]
    assert list(found["both"]) == [JOINED, SHARED, "x", "w", MEAN]
    parts = [found["both"][name] for name in (JOINED, "x", "w")]
    torch.testing.assert_close(found["both"][MEAN].to_dense(), mean_graph(parts).to_dense())
    monkeypatch.setattr(propagation, "choose", lambda *_: MEAN)
    (examples,) = data.examples
    labelled = torch.from_numpy(examples.labelled)
    expected = propagate(found["both"][MEAN], labelled, one_hot(data.label[labelled], 3))
    torch.testing.assert_close(propagated_labels(data, 5)[0], expected)


def test_where_no_row_has_two_modalities_the_graph_is_of_all_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagation, "shared_components", lambda read, _: 0 * comparable_rows(read))
    shard = make_shard(tmp_path / "shard.h5")
    data = load([make_settings("ssmvae", shard)], [shard], CPU)
    graphs = candidate_graphs(partial(data.training_features, 0), data, 5, lambda: None)
    assert graphs[SHARED] is graphs[JOINED]
    usual = blended(graphs[JOINED], graphs[SHARED], torch.arange(6), one_hot(torch.arange(6) % 3, 3))
    torch.testing.assert_close(usual.to_dense(), graphs[JOINED].to_dense())
    everything = blended(graphs[JOINED], graphs[SHARED], torch.arange(40), one_hot(torch.arange(40) % 3, 3))
    torch.testing.assert_close(everything.to_dense(), graphs[JOINED].to_dense())


def right(soft: Tensor, shard: Shard) -> float:
    """How many rows get their own label."""
    return float((soft.argmax(-1).numpy() == shard.train.labels).mean())


def test_replicas_spread_their_own_labels_and_shards_have_their_own_graphs(tmp_path: Path) -> None:
    first = make_shard(tmp_path / "first.h5", train=clusters("train", turns(40), (X, W), spread=1.0))
    second = make_shard(tmp_path / "second.h5", train=clusters("train", turns(31), (X, W), seed=5))
    stack = [make_settings("ssmvae", shard, seed=seed) for shard, seed in ((first, 0), (first, 1), (second, 0))]
    together = propagated_labels(load(stack, [first, first, second], CPU), 3)
    for replica, (settings, shard) in enumerate(zip(stack, (first, first, second), strict=True)):
        alone = propagated_labels(load([settings], [shard], CPU), 3)
        torch.testing.assert_close(together[replica, : alone.shape[1]], alone[0])
    assert not torch.equal(together[0], together[1])


def test_other_labels_of_the_same_rows_need_no_other_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(*arguments: Any) -> dict[str, Tensor]:
        made.append(arguments)
        return candidate_graphs(*arguments)

    def spread(shard: Shard, seed: int = 0, neighbours: int = 4) -> Tensor:
        return propagated_labels(load([make_settings("ssmvae", shard, seed=seed)], [shard], CPU), neighbours)

    monkeypatch.setattr(propagation, "candidate_graphs", counting)
    monkeypatch.setattr(propagation, "_KEPT", propagation._Kept())
    one = make_shard(tmp_path / "one.h5", train=clusters("train", turns(40), (X, W), spread=1.0))
    holey = holey_shard(tmp_path / "holey.h5")
    kept = [spread(one, seed=0), spread(one, seed=1)]
    assert len(made) == 1
    assert not torch.equal(*kept)
    monkeypatch.setattr(propagation, "_KEPT_ROWS", 0)
    for number, (shard, neighbours) in enumerate([(one, 3), (holey, 3), (one, 4), (one, 4)], 2):
        again = spread(shard, seed=1, neighbours=neighbours)
        assert len(made) == number
    assert torch.equal(again, kept[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: propagated labels are not compared")
@pytest.mark.parametrize("make", [make_shard, holey_shard])
def test_the_gpu_propagates_what_the_cpu_does(make: Callable[[Path], Shard], tmp_path: Path) -> None:
    shard = make(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard)]
    on_cpu, on_gpu = (
        propagated_labels(load(stack, [shard], torch.device(device)), 5).cpu() for device in ("cpu", "cuda")
    )
    assert (on_cpu.argmax(-1) == on_gpu.argmax(-1)).float().mean() > 0.95


def test_streamed_rows_find_their_own_propagated_labels(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "numbered.h5")
    stack = [streaming_settings(shard, seed=seed) for seed in (0, 1)]
    data = streamed(stack, shard)
    try:
        streams = data.streams("unlabelled", [0, 1], 16)
        index = data.first_index(streams)
        for step in range(40):
            data.write_indices(index, streams, step)
            assert torch.equal(data.training_rows(index), data.x(index)["w"][..., 0].long())  # w is the row
        for replica, examples in enumerate(data.examples):
            places = torch.from_numpy(examples.labelled)
            ids = [f"train-{row}" for row in data.training_rows(places).tolist()]
            assert ids == list(data.examples[replica].labelled_ids)
        rows = torch.cat([block["w"][:, 0] for block in data.training_features(0)])
        assert torch.equal(rows, torch.arange(shard.train.rows).float())
        soft = propagated_labels(data, 5)
        assert soft.shape == (2, shard.train.rows, len(shard.classes))
        torch.testing.assert_close(soft.sum(-1), torch.ones(2, shard.train.rows))
    finally:
        data.close()
