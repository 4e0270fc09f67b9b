"""The graph of nearest neighbours against dense algebra by hand, in pieces, and by the library for many rows."""

import sys

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.runtime.errors import UsageError
from tests.support.row_blocks import points
from trainer.data import neighbour_graph as module
from trainer.data.neighbour_graph import mean_graph, nearest, neighbour_graph


def test_the_graph_is_zhous_with_powers_of_cosines_of_nearest_neighbours() -> None:
    x = points(6, 0, 40)
    unit = normalize(x, dim=-1)
    cosines = unit @ unit.T
    weights = torch.zeros_like(cosines)
    near = (cosines - 3 * torch.eye(len(x))).topk(4).indices.tolist()
    for row, others in enumerate(near):
        for other in others:
            weight = max(float(cosines[row, other]), 0) ** 8 * (1.0 if row in near[other] else 0.25)
            weights[row, other] += weight
            weights[other, row] += weight
    degree = weights.sum(1)
    expected = weights / (degree[:, None] * degree[None]).sqrt()
    torch.testing.assert_close(neighbour_graph(unit, 4).to_dense(), expected)


def test_neighbours_are_the_same_in_pieces_and_never_the_row_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normalize(
        torch.cat([points(6, 0, 40), points(6, 0, 40)]), dim=-1
    )  # every row twice: its duplicate is its nearest
    cosines, rows = nearest(x, 3)
    assert torch.equal(rows[:, 0], (torch.arange(80) + 40) % 80)
    assert not (rows == torch.arange(80).unsqueeze(-1)).any()
    monkeypatch.setattr(module, "_SIMILARITIES", 80 * 7)
    in_pieces = nearest(x, 3)
    torch.testing.assert_close(in_pieces[0], cosines)
    assert torch.equal(in_pieces[1][:, 0], rows[:, 0])


def test_the_mean_of_graphs_is_theirs() -> None:
    graphs = [neighbour_graph(points(6, seed, 40), 3) for seed in range(3)]
    mean = mean_graph(graphs)
    assert mean.layout == torch.sparse_csr
    dense = torch.stack([graph.to_dense() for graph in graphs])
    torch.testing.assert_close(mean.to_dense(), dense.mean(0))
    weighted = mean_graph(graphs, [0.75, 0.25, 0.0])
    torch.testing.assert_close(weighted.to_dense(), 0.75 * dense[0] + 0.25 * dense[1])


def test_too_many_rows_name_the_library_that_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.EXACT_ROWS, "cpu", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match="40 rows are too many") as raised:
        nearest(normalize(points(6, 0, 40), dim=-1), 3)
    assert "mmssl[neighbours]" in str(raised.value.hint)


def test_the_library_finds_nearly_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="the extra `neighbours` is not installed")
    x = normalize(torch.cat([points(8, 0, 1500), points(8, 0, 20)]), dim=-1)  # some rows twice
    _, exact = nearest(x, 5)
    monkeypatch.setitem(module.EXACT_ROWS, "cpu", 10)
    cosines, rows = nearest(x, 5)
    assert not (rows == torch.arange(len(x)).unsqueeze(-1)).any()
    same = (rows.unsqueeze(-1) == exact.unsqueeze(-2)).any(-1).float().mean()
    assert float(same) > 0.95
    torch.testing.assert_close(cosines, (x.unsqueeze(1) * x[rows]).sum(-1), rtol=1e-4, atol=1e-5)
