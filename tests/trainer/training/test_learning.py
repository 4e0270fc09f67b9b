"""What a comparison rests on: every system learns from few labels, and from the unlabelled examples besides."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.datasets.digits import build
from pipeline.runtime.errors import Interrupted
from pipeline.shards.shard import Modality, Shard
from tests.support.training import (
    CPU,
    NETWORKS,
    WITH_LABELS,
    StopAfter,
    X,
    flipped,
    make_data,
    make_settings,
    make_shard,
    make_step,
    outcome,
    run_stack,
    scores,
)  # fmt: skip
from trainer.evaluation.evaluate import evaluate
from trainer.jobs.plan import plan
from trainer.jobs.train import evaluate_run, train_all
from trainer.training.progress import Silent


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    folder = tmp_path_factory.mktemp("digits")
    return Shard.open(build("hm-digits", folder, folder / "raw"))


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    return flipped(tmp_path_factory.mktemp("bits") / "shard.h5")


@pytest.mark.parametrize("model", [*WITH_LABELS, "ct-svm", "cotraining"])
def test_every_system_of_table_5_learns_from_few_labels(model: str, digits: Shard, tmp_path: Path) -> None:
    """Fifty labelled digits; chance is 10 %, and 360 test digits leave a standard deviation of 2."""
    networks = {
        name: re.sub(r", D\d+", ", D8", re.sub(r"D8BR", "D32BR", text)) for name, text in NETWORKS[model].items()
    }
    deep = {"networks": networks, "learning_rate": 1e-2, "epochs": 5, "labelled_batch_size": 50}
    rounds = {"epochs": 2, "cotraining": {"k_best": 5}}
    values = {"ct-svm": rounds, "cotraining": deep | rounds | {"cotraining": {"k_best": 5, "least_steps": 60}}}
    seen = {"modalities": ("x",)} if model == "sdgm" else {}
    more = {} if model in values else {"batch_size": 128, "label_estimator": "exact"}
    alphas = () if model in values else (50.0,)
    jobs = plan(model, [digits], values=values.get(model, deep) | seen | more | {"labels": 50}, alphas=alphas)
    (run,) = train_all(jobs, [tmp_path / "run"], CPU, Silent())
    by_given = {
        given: accuracy for (given, completion), accuracy in scores(run.result()).items() if completion != "zeros"
    }
    assert by_given.keys() <= {"x", "w", "x+w"}
    assert min(by_given.values()) > 0.4
    assert model == "sdgm" or by_given["x+w"] > 0.55


def accuracies(model: str, shard: Shard, **changes: object) -> np.ndarray:
    """Of three seeds after 120 steps, with two labels a class, on all that the model sees."""
    networks = {name: text.replace("D8BR", "D24BR").replace(", D4", ", D8") for name, text in NETWORKS[model].items()}
    stack = [
        make_settings(
            model, shard, seed=seed, networks=networks, labels=10, label_estimator="exact", alpha=10.0, batch_size=64,
            labelled_batch_size=10, **changes,
        )
        for seed in range(3)
    ]  # fmt: skip
    step = make_step(stack, shard)
    for number in range(120):
        step(number)
    evaluations = evaluate(step.model, step.noise, step.data, iterations=1, samples=0, bound=False, fast=True)
    return np.array([evaluation.scores[-1].accuracy for evaluation in evaluations])


@pytest.mark.parametrize("model", WITH_LABELS)
def test_unlabelled_examples_help(model: str, bits: Shard) -> None:
    """The same network, labels and number of steps, with the bound of all examples and with the labelled ones alone."""
    together, alone = accuracies(model, bits), accuracies(model, bits, objective="classifier")
    assert (together > alone).all()
    assert together.mean() > alone.mean() + 0.1


# --- the classifier alone (table 6) ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [6, "all"])
@pytest.mark.parametrize("model", WITH_LABELS)
def test_a_classifier_alone_moves_what_the_classifier_is_made_of(model: str, labels: object, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, Modality("w", 6, "bernoulli")))
    step = make_step([make_settings(model, shard, labels=labels, objective="classifier")], shard)
    assert step.batches.index_u is None
    assert step.terms.names == ["J", "log q(y)"] + (["J_div"] if model == "sshmvae-kl" else [])
    before = {name: tensor.clone() for name, tensor in step.model.named_parameters()}
    for number in range(3):
        step(number)
    moved = {
        name.split(".")[0] for name, tensor in step.model.named_parameters() if not torch.equal(before[name], tensor)
    }
    parts = {"m2": {"q_y"}, "ssmvae": {"q_y"}, "sdgm": {"q_a", "q_y"}, "sshmvae": {"q_a", "q_y"}}
    assert moved == parts.get(model, {"q_a", "q_y", "q_a_each"})


def test_its_objective_is_the_likelihood_of_the_labels(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("ssmvae", shard, objective="classifier", alpha=3.0)], shard)
    step.batches.load(0)
    data = step.data
    assert step.batches.index_l is not None
    x, y = data.x(step.batches.index_l), data.y(step.batches.index_l)
    step.model.eval()  # running statistics: no batch to differ by
    log_q = step.model.classify(x)
    expected = torch.nn.functional.cross_entropy(log_q[0], y[0].argmax(-1)).detach()
    assert float(step.objective().loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_it_has_no_elbo_and_no_iterative_sampling_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae", shard, objective="classifier")
    (whole,) = run_stack(tmp_path / "whole", [settings], [shard])
    assert [completion for _, completion in scores(whole.result())] == ["zeros", "zeros", "none"]
    assert whole.result().elbo is None
    assert evaluate_run(whole, CPU).elbo is None
    assert "labels-6-classifier-" in settings.name()
    with pytest.raises(Interrupted):
        run_stack(tmp_path / "stopped", [settings], [shard], StopAfter(1))
    (run,) = run_stack(tmp_path / "stopped", [settings], [shard])
    assert outcome(run) == outcome(whole)


def test_unlabelled_rows_play_no_part_in_it(tmp_path: Path) -> None:
    data = make_data([make_settings("ssmvae", shard := make_shard(tmp_path / "s.h5"), objective="classifier")], shard)
    assert len(data.examples[0].unlabelled) == 0
    assert len(data.examples[0].labelled) == 6
