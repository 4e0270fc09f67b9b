"""Replicas of a stack do not influence each other: not by their weights, data, alpha, beta, noise or place."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import Interrupted
from pipeline.shards.shard import Shard
from tests.support.training import (
    MODELS,
    NETWORKS,
    StopAfter,
    W,
    X,
    clusters,
    make_settings,
    make_shard,
    make_step,
    outcome,
    run_stack,
    scores,
    turns,
)
from trainer.nn.rng import Noise
from trainer.settings.run_settings import Settings
from trainer.training.run_folder import Run

STEPS = 8
Weights = dict[str, torch.Tensor]


@pytest.fixture
def splits(tmp_path: Path) -> list[Shard]:
    """Three splits of different lengths, whose epochs have 5, 4 and 8 steps."""
    return [
        make_shard(
            tmp_path / f"split-{split}.h5",
            split=split,
            train=clusters(f"train-{split}", turns(rows), (X, W), seed=split),
            test=clusters(f"test-{split}", turns(tests), (X, W), seed=9 + split),
        )
        for split, (rows, tests) in enumerate([(40, 12), (32, 25), (67, 7)])
    ]


def trained(stack: list[tuple[Settings, Shard]], replica: int = 0) -> Weights:
    """One replica's weights and running statistics, its Adam moments and its noise, after a few steps of the stack."""
    step = make_step([settings for settings, _ in stack], *(shard for _, shard in stack))
    for number in range(STEPS):
        step(number)
    tensors = {name: tensor[replica].clone() for name, tensor in step.model.state_dict().items()}
    for name, parameter in step.model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment} of {name}"] = step.optimizer.state[parameter][moment][replica].clone()
    return tensors | {"noise": step.noise.state(replica), "totals": step.terms.totals[:, replica].clone()}


def assert_close(actual: Weights, expected: Weights) -> None:
    assert torch.equal(actual["noise"], expected["noise"])
    for name in actual:
        assert torch.allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5), name


def make(model: str, shard: Shard, **changes: object) -> tuple[Settings, Shard]:
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    return make_settings(model, shard, **(kinds | changes)), shard


@pytest.mark.parametrize("model", MODELS)
def test_a_replica_is_the_same_alone_and_among_any_neighbours(model: str, splits: list[Shard]) -> None:
    replica = make(model, splits[0], seed=5, alpha=0.7, beta=0.3)
    alone = trained([replica])
    other_seeds = [make(model, splits[0], seed=seed, alpha=0.7, beta=0.3) for seed in (1, 2)]
    other_all = [make(model, splits[1], seed=5, alpha=30, beta=10), make(model, splits[2], seed=8, alpha=0, beta=0)]
    assert_close(trained([replica, *other_seeds]), alone)
    assert_close(trained([*other_all, replica, *other_seeds], 2), alone)
    twin = make(model, splits[0], seed=6, alpha=0.7, beta=0.3)
    with pytest.raises(AssertionError):  # what is called close here tells two seeds apart
        assert_close(trained([twin]), alone)


@pytest.mark.parametrize("model", ["sshmvae-kl", "ssmvae"])
@pytest.mark.parametrize("label", ["gumbel", "exact"])
def test_every_place_in_a_stack_of_four(model: str, label: str, splits: list[Shard]) -> None:
    networks = NETWORKS[model] | {"q(y|X)" if model == "ssmvae" else "q(y|a)": "X-D8BR-Dropout0.5, DK"}
    if model == "sshmvae-kl":
        networks |= {"q(y|a)": "a-D8BR-Dropout0.5, DK"}
    stack = [
        make(model, splits[split], seed=seed, alpha=alpha, beta=beta, label_estimator=label, networks=networks)
        for split, seed, alpha, beta in [(0, 3, 1, 1), (1, 3, 1, 1), (2, 4, 0.1, 1), (0, 4, 10, 0.1)]
    ]
    for place, replica in enumerate(stack):
        assert_close(trained(stack, place), trained([replica]))


@pytest.mark.parametrize("model", ["sshmvae-kl", "ssmvae", "jmvae-kl"])
def test_what_a_neighbour_is_given_changes_not_one_bit(model: str, splits: list[Shard]) -> None:
    """Stacks of one shape, on one machine: here there is no tolerance."""
    replica = make(model, splits[0], seed=5)
    before = trained([replica, make(model, splits[0], seed=1)])
    for neighbour in (
        make(model, splits[0], seed=2),
        make(model, splits[1], seed=1),
        make(model, splits[2], seed=1, alpha=1000, beta=1000),
    ):
        after = trained([replica, neighbour])
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_neighbours_overflow_does_not_spread(splits: list[Shard]) -> None:
    """A stack stops where one replica fails; until then the others are as if it were not there."""
    replica = make("ssmvae", splits[0], seed=5)
    sick = make("ssmvae", splits[1], seed=1, alpha=float(torch.finfo(torch.float32).max))
    step = make_step([replica[0], sick[0]], replica[1], sick[1])
    for number in range(STEPS):
        step(number)
    assert not bool(step.terms.finite[:, 1].all())
    assert bool(step.terms.finite[:, 0].all())
    alone = trained([replica])
    for name, tensor in step.model.state_dict().items():
        assert torch.allclose(tensor[0], alone[name], rtol=1e-4, atol=1e-5), name


def assert_same_outcome(actual: list[Run], expected: list[Run]) -> None:
    for run, expected_run in zip(actual, expected, strict=True):
        assert run.result().elbo == pytest.approx(expected_run.result().elbo, rel=1e-4)
        for score, expected_score in zip(run.result().scores, expected_run.result().scores, strict=True):
            assert (score.given, score.completion, score.examples) == (
                expected_score.given,
                expected_score.completion,
                expected_score.examples,
            )
            assert score.nll == pytest.approx(expected_score.nll, rel=1e-4)
        assert scores(run.result()) == scores(expected_run.result())
        for name, tensor in run.read_weights().items():
            assert torch.allclose(tensor, expected_run.read_weights()[name], rtol=1e-4, atol=1e-5), name
        for row, expected_row in zip(run.metrics(), expected_run.metrics(), strict=True):
            assert {k: float(v) for k, v in row.items()} == pytest.approx(
                {k: float(v) for k, v in expected_row.items()}, rel=1e-3, abs=1e-3
            )
        assert outcome(run)["labelled.txt"] == outcome(expected_run)["labelled.txt"]


@pytest.fixture
def alike(tmp_path: Path) -> list[Shard]:
    """Splits whose epochs have five steps each, and whose test sets differ in length."""
    rows = [(40, 12), (39, 25), (40, 7)]
    return [
        make_shard(
            tmp_path / f"alike-{split}.h5",
            split=split,
            train=clusters(f"train-{split}", turns(train), (X, W), seed=split),
            test=clusters(f"test-{split}", turns(test), (X, W), seed=9 + split),
        )
        for split, (train, test) in enumerate(rows)
    ]


@pytest.mark.parametrize("model", ["sshmvae", "jmvae"])
def test_runs_and_scores_are_the_same_in_any_stack(model: str, alike: list[Shard], tmp_path: Path) -> None:
    """As whole runs: metrics, and test sets of different lengths with iterative sampling and samples of a."""
    stack = [make(model, shard, seed=seed, samples=2, epochs=1)[0] for seed, shard in enumerate(alike)]
    together = run_stack(tmp_path / "together", stack, alike)
    apart = run_stack(tmp_path / "apart", stack, alike, most=1)
    pairs = run_stack(tmp_path / "pairs", stack[::-1], alike[::-1], most=2)[::-1]
    assert [run.provenance()["stacked with"] for run in together + apart + pairs] == [2, 2, 2, 0, 0, 0, 0, 1, 1]
    assert_same_outcome(together, apart)
    assert_same_outcome(pairs, apart)


def test_splits_of_different_lengths_go_on_apart_as_they_began_together(splits: list[Shard], tmp_path: Path) -> None:
    """An epoch has the longest split's steps; a replica that goes on without it keeps to that."""
    stack = [make("ssmvae", shard, seed=seed)[0] for seed, shard in enumerate(splits)]
    undisturbed = run_stack(tmp_path / "undisturbed", stack, splits)
    assert [run.provenance()["steps an epoch"] for run in undisturbed] == [8, 8, 8]
    with pytest.raises(Interrupted, match="after 11 of 16 steps"):
        run_stack(tmp_path / "disturbed", stack, splits, StopAfter(11))
    disturbed = run_stack(tmp_path / "disturbed", stack, splits, most=1)
    assert [run.provenance()["stacked with"] for run in disturbed] == [0, 0, 0]
    assert [len(run.metrics()) for run in disturbed] == [2, 2, 2]
    assert_same_outcome(disturbed, undisturbed)


# --- noise -----------------------------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[Noise, int], torch.Tensor]] = {
    "normal": lambda noise, replicas: noise.normal((replicas, 5, 3)),
    "uniform": lambda noise, replicas: noise.uniform((replicas, 5, 3)),
    "gumbel": lambda noise, replicas: noise.gumbel((replicas, 5, 3)),
    "over classes": lambda noise, replicas: noise.normal((4, replicas, 5, 3)).transpose(0, 1),
    "initial": lambda noise, _: noise.initial_uniform((5, 3), 0.5),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_noise_is_a_function_of_the_replicas_seed_alone(draw: str) -> None:
    stacked = Noise([3, 8, 3, 0])
    for _ in range(3):  # call after call
        values = DRAWS[draw](stacked, 4)
        assert torch.equal(values[0], values[2])
        assert not torch.equal(values[0], values[1])
        assert len(values[0].unique()) == values[0].numel()
    for place, seed in enumerate([3, 8, 3, 0]):
        alone = Noise([seed])
        for _ in range(3):
            last = DRAWS[draw](alone, 1)
        assert torch.equal(last[0], values[place])


def test_noise_for_a_replicas_own_rows_alone() -> None:
    """A batch padded to a neighbour's length takes from a replica's stream what the batch alone would take."""
    stacked, long, short = Noise([3, 8]), Noise([3]), Noise([8])
    for shape in [(23, 3), (23, 1)]:
        with stacked.limit_rows([23, 9]):
            both = stacked.normal((2, *shape))
            every = stacked.gumbel((4, 2, *shape))
        assert torch.equal(both[0], long.normal((1, *shape))[0])
        assert torch.equal(every[:, 0], long.gumbel((4, 1, *shape))[:, 0])
        assert torch.equal(both[1, :9], short.normal((1, 9, shape[1]))[0])
        assert torch.equal(every[:, 1, :9], short.gumbel((4, 1, 9, shape[1]))[:, 0])
    with stacked.limit_rows([5, 0]):
        stacked.uniform((2, 5, 2))
    assert torch.equal(stacked.state(1), short.state(0))
    assert torch.equal(stacked.normal((2, 4, 2))[1], short.normal((1, 4, 2))[0])


def test_noise_apart_leaves_the_usual_streams_where_they_were() -> None:
    noise, undisturbed = Noise([3, 8]), Noise([3, 8])
    noise.normal((2, 4, 2)), undisturbed.normal((2, 4, 2))
    with noise.separate_streams("evaluation"):
        first = noise.normal((2, 4, 2))
        with noise.separate_streams("something else"):
            other = noise.normal((2, 4, 2))
        second = noise.normal((2, 4, 2))
    with noise.separate_streams("evaluation"):
        assert torch.equal(noise.normal((2, 4, 2)), first)
        assert torch.equal(noise.normal((2, 4, 2)), second)
    assert not torch.equal(first, other)
    with pytest.raises(ZeroDivisionError), noise.separate_streams("evaluation"):
        raise ZeroDivisionError
    usual = undisturbed.normal((2, 4, 2))
    assert torch.equal(noise.normal((2, 4, 2)), usual)
    assert not torch.equal(first, usual)


def test_noise_goes_on_from_its_state() -> None:
    noise = Noise([3, 8])
    noise.normal((2, 4, 2))
    states = [noise.state(replica) for replica in range(2)]
    expected = noise.gumbel((2, 4, 2))
    again = Noise([8, 3])
    again.set_state(1, states[0])
    again.set_state(0, states[1])
    assert torch.equal(again.gumbel((2, 4, 2)), expected.flip(0))
