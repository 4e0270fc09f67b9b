"""The loop: what a step learns from, what stops it, and that stopping and going on leaves no trace."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import DataError, Interrupted, TrainingError, UsageError
from pipeline.shards.shard import Shard
from tests.support.paths import ROOT
from tests.support.training import (
    CLASSES,
    CPU,
    MODELS,
    NETWORKS,
    WITH_LABELS,
    StopAfter,
    V,
    W,
    X,
    clusters,
    make_data,
    make_settings,
    make_shard,
    make_step,
    outcome,
    run_stack,
    scores,
    turns,
)
from trainer.evaluation.evaluate import evaluate
from trainer.nn.layers import ReplicaBatchNorm, ReplicaLinear
from trainer.nn.rng import Noise
from trainer.settings.run_settings import Settings
from trainer.training import loop, method
from trainer.training.checkpoints import save
from trainer.training.run_folder import Checkpoint, Run
from trainer.training.step import Step, precision

DROPOUT = NETWORKS["ssmvae"] | {"q(y|X)": "(X-D8BR-Dropout0.5)-D8BR-Dropout0.25, DK"}


def take(step: Step, steps: int) -> Step:
    for number in range(steps):
        step(number)
    return step


def weights(step: Step) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in step.model.state_dict().items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- what is learnt from ---------------------------------------------------------------------------------------------


def marked(path: Path, change: Callable[[np.ndarray], None]) -> Shard:
    """A shard whose first nine rows are the labelled ones; `change` may alter the labels."""
    train = clusters("train", turns(40), (X, W))
    train.labelled = np.arange(40) < 9
    train.labels = np.array(train.labels)
    change(train.labels)
    return make_shard(path, train=train)


@pytest.mark.parametrize("model", MODELS)
def test_labels_of_unlabelled_rows_change_nothing(model: str, tmp_path: Path) -> None:
    def keep(_: np.ndarray) -> None: ...

    def shuffle(labels: np.ndarray) -> None:
        labels[9:] = np.random.default_rng(0).integers(-1, 3, 31)

    def relabel(labels: np.ndarray) -> None:
        labels[0], labels[1] = labels[1], labels[0]

    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    shards = [marked(tmp_path / f"{change.__name__}.h5", change) for change in (keep, shuffle, relabel)]
    assert len({shard.digest for shard in shards}) == 3
    plain, shuffled, relabelled = (
        weights(take(make_step([make_settings(model, shard, labels="shard", **kinds)], shard), 6)) for shard in shards
    )
    assert equal(plain, shuffled)
    assert equal(plain, relabelled) == (model not in WITH_LABELS)  # those of labelled rows do matter


@pytest.mark.parametrize(("model", "label_estimator"), [("sshmvae-kl", "gumbel"), ("ssmvae", "exact")])
def test_the_bound_rises_and_so_does_accuracy(model: str, label_estimator: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings(model, shard, label_estimator=label_estimator, alpha=10)], shard)
    (before,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
    means = []
    for epoch in range(16):
        step.terms.totals.zero_()
        for number in range(5 * epoch, 5 * epoch + 5):
            step(number)
        means.append(step.terms.totals[:, 0] / 5)
    for name in ("J", "L", "U", "log q(y)"):
        row = step.terms.names.index(name)
        assert means[-1][row] > means[0][row] + 0.3
    (after,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
    assert scores(before)["x+w", "none"] <= 0.6
    assert scores(after)["x+w", "none"] >= 0.9
    assert after.elbo > before.elbo + 1


@pytest.mark.parametrize("model", WITH_LABELS)
def test_gumbel_and_exact_labels(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    ends = {}
    for label in ("gumbel", "exact"):
        step = make_step([make_settings(model, shard, label_estimator=label, **kinds)], shard)
        start = weights(step)
        ends[label] = weights(take(step, 4))
        assert bool(step.terms.finite.all())
        for name, parameter in step.model.named_parameters():
            assert not torch.equal(start[name], parameter), f"{name} was not trained"
    assert not equal(ends["gumbel"], ends["exact"])


@pytest.mark.parametrize("model", MODELS)
def test_all_labelled(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    step = make_step([make_settings(model, shard, labels="all", **kinds)], shard)
    assert step.batches.per_epoch == 5  # 40 rows in batches of 8
    take(step, 5)
    if model in WITH_LABELS:
        assert step.batches.index_u is None
        assert sorted(np.concatenate([step.batches.labelled[0].batch(n) for n in range(5)])) == list(range(40))
        assert not any(name.startswith("U") for name in step.terms.names)
        assert {"J", "L", "log q(y)"} <= set(step.terms.names)
    else:
        assert step.batches.index_l is None
    moved = [n.mean.abs().sum() > 0 for n in step.model.modules() if isinstance(n, ReplicaBatchNorm)]
    assert all(moved)  # here the running statistics follow the labelled pass: there is no other


@pytest.mark.parametrize("model", ["jmvae", "jmvae-kl"])
def test_a_model_without_labels_sees_every_row_once_an_epoch(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings(model, shard)], shard)
    assert step.batches.index_l is None
    assert step.batches.labelled == []
    seen = []
    for number in range(step.batches.per_epoch):
        step.batches.load(number)
        assert step.batches.index_u is not None
        seen += step.batches.index_u[0].tolist()
    assert sorted(seen) == list(range(40))


def test_running_statistics_follow_the_unlabelled_pass_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("ssmvae", shard, seed=2)], shard)
    norms = [module for module in step.model.modules() if isinstance(module, ReplicaBatchNorm)]
    assert all(bool((n.mean == 0).all() and (n.variance == 1).all()) for n in norms)  # making a step leaves no trace
    branch = step.model.q_y.mlp.parts[0].layers  # the branch of x: D8BR
    linear, norm = branch[0], branch[1]
    assert isinstance(linear, ReplicaLinear)
    assert isinstance(norm, ReplicaBatchNorm)
    step.batches.load(0)
    assert step.batches.index_u is not None
    h = torch.einsum("rbf,rfo->rbo", step.data.x(step.batches.index_u)["x"], linear.weight)
    expected_mean, expected_variance = 0.1 * h.mean(1), 0.9 + 0.1 * h.var(1, correction=1)
    step(0)
    assert torch.allclose(norm.mean, expected_mean, rtol=1e-5, atol=1e-7)
    assert torch.allclose(norm.variance, expected_variance, rtol=1e-5)


def test_batches_are_gathered_from_the_streams(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard, seed=seed) for seed in (4, 9)]
    step = Step(stack, make_data(stack, shard), CPU)
    step.batches.load(11)
    assert step.batches.index_l is not None
    assert step.batches.index_u is not None
    for r in range(2):
        assert step.batches.index_l[r].tolist() == step.batches.labelled[r].batch(11).tolist()
        assert step.batches.index_u[r].tolist() == step.batches.unlabelled[r].batch(11).tolist()
        assert not set(step.batches.index_l[r].tolist()) & set(step.batches.index_u[r].tolist())
    assert step.batches.per_epoch == math.ceil(34 / 8)
    assert len(step.data.classes) == len(CLASSES)


def test_making_a_step_takes_no_noise(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    step = make_step([make_settings("sshmvae-kl", shard, seed=5), make_settings("sshmvae-kl", shard, seed=6)], shard)
    fresh = Noise([5, 6])
    for replica in range(2):
        assert torch.equal(step.noise.state(replica), fresh.state(replica))


def test_bfloat16_is_for_matrix_products_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    products: set[torch.dtype] = set()

    def watch(_: object, __: object, output: torch.Tensor) -> None:
        products.add(output.dtype)

    ends = {}
    for chosen in ("fp32", "bf16"):
        products.clear()
        step = make_step([make_settings("sshmvae-kl", shard, precision=chosen)], shard)
        for module in step.model.modules():
            if isinstance(module, ReplicaLinear):
                module.register_forward_hook(watch)
        densities = []
        bound = step.model.bound
        step.model.bound = lambda *given, bound=bound, kept=densities: kept.append(bound(*given)) or kept[-1]
        take(step, 12)
        assert products == {torch.bfloat16 if chosen == "bf16" else torch.float32}
        assert len(densities) == 24
        for own in densities:
            terms = [*own.log_p.values(), *own.log_q.values(), *own.divergence.values(), own.value]
            assert {term.dtype for term in terms} == {torch.float32}
        assert {p.dtype for p in step.model.parameters()} == {torch.float32}
        ends[chosen] = float(step.terms.totals[step.terms.names.index("J"), 0]) / 12
    assert ends["bf16"] != ends["fp32"]
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.05)


def test_precision_is_put_back() -> None:
    settings = Settings(
        model="m2", data="none", labels=3, epochs=1, batch_size=2, learning_rate=1e-3, networks=NETWORKS["m2"]
    )
    before = torch.get_float32_matmul_precision()
    with precision(settings, CPU):
        assert torch.get_float32_matmul_precision() == "highest"  # TF32 is CUDA's
    assert torch.get_float32_matmul_precision() == before
    with precision(settings, torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_metrics_are_the_means_of_an_epochs_terms(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae-kl", shard, alpha=2.5, beta=0.5)
    (run,) = run_stack(tmp_path / "run", [settings], [shard])
    step = make_step([settings], shard)
    for row in run.metrics():
        before = step.terms.totals.clone()
        for number in range(5 * (int(row["epoch"]) - 1), 5 * int(row["epoch"])):
            step(number)
        means = dict(zip(step.terms.names, ((step.terms.totals - before)[:, 0] / 5).tolist(), strict=True))
        assert {name: float(row[name]) for name in means} == pytest.approx(means, rel=1e-5, abs=1e-5)
        assert means["J"] == pytest.approx(
            means["L"] + 2.5 * means["log q(y)"] + means["U"] - 0.5 * means["J_div"], rel=1e-5
        )
        inside = {symbol: sum(v for k, v in means.items() if k.startswith(f"{symbol}: ")) for symbol in "LU"}
        divergence = {s: sum(v for k, v in means.items() if k.startswith(f"{s}: KL to")) for s in "LU"}
        for symbol in "LU":
            assert inside[symbol] - divergence[symbol] == pytest.approx(means[symbol], rel=1e-5)
        assert means["J_div"] == pytest.approx(6 / 40 * divergence["L"] + 34 / 40 * divergence["U"], rel=1e-5)
        (now,) = evaluate(step.model, step.noise, step.data, iterations=1, samples=0)
        assert {k: float(v) for k, v in row.items() if k.startswith("accuracy")} == pytest.approx(
            {f"accuracy {s.given}": s.accuracy for s in now.scores}, abs=1e-6
        )
    assert len(run.metrics()) == 2


# --- stopping and going on -------------------------------------------------------------------------------------------

RESUMED: dict[str, dict[str, Any]] = {
    "gumbel": {"model": "sshmvae"},
    "exact": {"model": "ssmvae", "label_estimator": "exact"},
    "dropout": {"model": "ssmvae", "networks": DROPOUT, "samples": 2},
    "kl": {"model": "sshmvae-kl", "beta": 0.1},
    "no labels": {"model": "jmvae-kl"},
    "all labelled": {"model": "ssmvae", "labels": "all"},
    "beyond": {
        "model": "sshmvae-kl", "partial_alpha": 1, "consistency": 1, "smoothness": 1, "averaging": 0.9,
        "schedule": "cosine",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(kind: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings(shard=shard, **RESUMED[kind])
    (undisturbed,) = run_stack(tmp_path / "undisturbed", [settings], [shard])
    stops = [2, 5, 6, 9]  # within an epoch, at its end, just after, and shortly before the end of all
    for done in stops:
        progress = StopAfter(*stops)
        with pytest.raises(Interrupted) as caught:
            run_stack(tmp_path / "disturbed", [settings], [shard], progress)
        assert caught.value.exit_code == 75
        assert caught.value.message == f"stopped by SIGTERM after {done} of 10 steps; all of it is saved"
        assert progress.seen[-1] == done
        folder = tmp_path / "disturbed" / "0"
        assert (folder / "checkpoint.safetensors").exists()
        assert not (folder / "result.json").exists()
    progress = StopAfter()
    (disturbed,) = run_stack(tmp_path / "disturbed", [settings], [shard], progress)
    assert progress.seen == [10]
    assert outcome(disturbed) == outcome(undisturbed)


def test_a_stack_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    shards = [make_shard(tmp_path / "a.h5", split=0), make_shard(tmp_path / "b.h5", split=1)]
    stack = [make_settings("sshmvae", shards[r % 2], seed=r, alpha=1 + r) for r in range(3)]
    given = [shards[0], shards[1], shards[0]]
    undisturbed = run_stack(tmp_path / "undisturbed", stack, given)
    with pytest.raises(Interrupted, match="stopped by SIGINT after 7 of 10 steps"):
        run_stack(tmp_path / "disturbed", stack, given, StopAfter(7, which=signal.SIGINT))
    disturbed = run_stack(tmp_path / "disturbed", stack, given)
    assert [outcome(run) for run in disturbed] == [outcome(run) for run in undisturbed]


def test_a_stop_during_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae", shard)
    (undisturbed,) = run_stack(tmp_path / "undisturbed", [settings], [shard])

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(method, "evaluate", stopped)
        with pytest.raises(Interrupted):
            run_stack(tmp_path / "disturbed", [settings], [shard])
    progress = StopAfter()
    (disturbed,) = run_stack(tmp_path / "disturbed", [settings], [shard], progress)
    assert progress.seen == []  # nothing is trained again
    assert outcome(disturbed) == outcome(undisturbed)


def test_a_stop_in_the_last_step_is_no_reason_to_stop(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path / "run", [make_settings("m2", shard, modalities=("x",))], [shard], StopAfter(10))
    assert run.done


def test_what_is_done_is_left_alone(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("m2", shard, modalities=("x",), seed=seed) for seed in range(2)]
    (first,) = run_stack(tmp_path, stack[:1], [shard])
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    progress = StopAfter()
    both = run_stack(tmp_path, stack, [shard, shard], progress)
    assert [run.done for run in both] == [True, True]
    assert progress.seen == list(range(1, 11))  # the other one alone
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert both[1].provenance()["stacked with"] == 0


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.support.training import make_settings, run_stack
from pipeline.runtime.errors import MmsslError
from pipeline.shards.shard import Shard
from trainer.training import loop
from trainer.training.progress import Silent

class Slow(Silent):
    def step(self, done, total):
        print(done, flush=True)
        time.sleep(0.05)

loop.CHECKPOINT_SECONDS = 0
shard = Shard.open({shard!r})
try:
    run_stack(Path({folder!r}), [make_settings("sshmvae", shard)], [shard], Slow())
except MmsslError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
def test_a_process_that_is_told_to_stop_or_killed_goes_on_to_the_same_end(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("sshmvae", shard)
    (undisturbed,) = run_stack(tmp_path / "undisturbed", [settings], [shard])
    code = CHILD.format(root=str(ROOT), shard=str(shard.path), folder=str(tmp_path / "disturbed"))
    folder = tmp_path / "disturbed" / "0"
    for which, after, expected in ((signal.SIGTERM, 2, 75), (signal.SIGKILL, 7, -signal.SIGKILL)):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == after:
                child.send_signal(which)
                break
        _, complaint = child.communicate(timeout=60)
        assert child.returncode == expected, complaint
        if which == signal.SIGTERM:
            assert "stopped by SIGTERM after " in complaint
            assert "Traceback" not in complaint
            assert 2 <= Run.open(folder).read_checkpoint().values["step"] < 7  # type: ignore[union-attr]
        else:
            assert Run.open(folder).read_checkpoint().values["step"] == 5  # type: ignore[union-attr]
    (disturbed,) = run_stack(tmp_path / "disturbed", [settings], [shard])
    assert outcome(disturbed) == outcome(undisturbed)


class Killed(BaseException):
    """Nothing catches it, as nothing catches kill -9."""


@pytest.mark.slow
def test_a_stack_that_is_killed_at_any_write_goes_on_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained apart its replicas would end in other last digits."""
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("sshmvae-kl", shard, seed=seed, batch_size=17, iterations=1) for seed in range(2)]
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    undisturbed = [outcome(run) for run in run_stack(tmp_path / "undisturbed", stack, [shard] * 2)]
    replace, left = os.replace, 10**6

    def killed_after(source: object, target: object) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", killed_after)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nearly all of the time, and nobody cuts the power
    run_stack(tmp_path / "counted", stack, [shard] * 2)
    writes = 10**6 - left
    assert writes == 2 * (2 + 2 + 2 * 2 + 4)  # begun; metrics and checkpoints of two epochs; ended
    for moment in range(1, writes, 2):  # one of the two is ahead of the other
        left = moment
        with pytest.raises(Killed):
            run_stack(tmp_path / str(moment), stack, [shard] * 2)
        left = 10**6
        assert [outcome(run) for run in run_stack(tmp_path / str(moment), stack, [shard] * 2)] == undisturbed
        assert not list((tmp_path / str(moment)).rglob("*next*"))
        assert not list((tmp_path / str(moment)).rglob("evaluation.json"))


def test_a_checkpoint_of_another_run_or_device(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    stack = [make_settings("ssmvae", shard, seed=seed) for seed in range(2)]
    with pytest.raises(Interrupted):
        run_stack(tmp_path, stack, [shard, shard], StopAfter(3))
    first, second = (Run.open(tmp_path / str(r)) for r in range(2))
    path = second.folder / "checkpoint.safetensors"
    own = path.read_bytes()
    path.write_bytes((first.folder / "checkpoint.safetensors").read_bytes())
    with pytest.raises(DataError, match="belongs to a run of other settings") as caught:
        run_stack(tmp_path, stack, [shard, shard])
    assert str(path) in caught.value.message
    path.write_bytes(own)
    for run in (first, second):
        checkpoint = run.read_checkpoint()
        assert checkpoint is not None
        run.write_checkpoint(Checkpoint(checkpoint.tensors, checkpoint.values | {"device": "cuda"}))
    with pytest.raises(UsageError, match="was begun on cuda") as refused:
        run_stack(tmp_path, stack, [shard, shard])
    assert "--device cuda" in str(refused.value.hint)


# --- what stops a run ------------------------------------------------------------------------------------------------


def test_a_value_that_overflows_stops_the_run_and_is_named(tmp_path: Path) -> None:
    clean = make_shard(tmp_path / "clean.h5", (X, V))
    train = clusters("train", turns(40), (X, V))
    settings = make_settings("ssmvae", clean, seed=3)
    stream = make_step([settings], clean).batches.unlabelled[0]
    late = int(stream.batch(3)[0])  # an unlabelled row that the fourth step meets first
    train.features["v"][late, 1] = 1e30  # finite, but its square is not
    broken = make_shard(tmp_path / "broken.h5", (X, V), train=train)
    stack = [make_settings("ssmvae", broken, seed=3), make_settings("ssmvae", clean, seed=4)]
    given = [broken, clean]
    with pytest.raises(Interrupted):
        run_stack(tmp_path, stack, given, StopAfter(3))
    before = [(tmp_path / str(r) / "checkpoint.safetensors").read_bytes() for r in range(2)]
    for _ in range(2):
        progress = StopAfter()
        with pytest.raises(TrainingError) as caught:
            run_stack(tmp_path, stack, given, progress)
        assert progress.seen == []
        assert caught.value.message.startswith("training stopped: not finite: ")
        assert "'J' of seed 3" in caught.value.message
        assert "'U: log p(v|z,y)' of seed 3" in caught.value.message
        assert "seed 4" not in caught.value.message
        assert [(tmp_path / str(r) / "checkpoint.safetensors").read_bytes() for r in range(2)] == before
        assert [Run.open(tmp_path / str(r)).done for r in range(2)] == [False, False]


@pytest.mark.parametrize(
    ("rate", "epochs", "batch_size", "reason"),
    [
        (1e30, 2, 8, "training stopped: not finite: "),
        (
            1e39,
            1,
            40,
            "training stopped: not finite: the weights '",
        ),  # one step, whose terms are finite, and no weight after it
        (1e36, 1, 40, "the model's predictions from x are no numbers"),
    ],
)
def test_a_learning_rate_that_is_too_large(
    rate: float, epochs: int, batch_size: int, reason: str, tmp_path: Path
) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, V))
    settings = make_settings("sshmvae-kl", shard, learning_rate=rate, epochs=epochs, batch_size=batch_size, seed=7)
    with pytest.raises(TrainingError) as caught:
        run_stack(tmp_path, [settings], [shard])
    assert reason in caught.value.message
    assert "--lr" in str(caught.value.hint)
    assert not (tmp_path / "0" / "result.json").exists()


def test_a_stop_does_not_save_what_is_not_finite(tmp_path: Path) -> None:
    """On a device that is looked at only once an epoch, a checkpoint is a reason to look, too."""
    shard = make_shard(tmp_path / "shard.h5")
    settings = make_settings("ssmvae", shard)
    step = take(make_step([settings], shard), 1)
    run = Run(tmp_path / "run", settings)
    save([run], step, 1)
    before = (run.folder / "checkpoint.safetensors").read_bytes()
    step(1)
    step.terms.finite[step.terms.names.index("U"), 0] = False
    with pytest.raises(TrainingError, match="'U' of seed 0"):
        save([run], step, 2)
    assert (run.folder / "checkpoint.safetensors").read_bytes() == before
