"""Many runs at once: what is stacked with what, what is left alone, and evaluating a finished run anew."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import DataError, TrainingError
from pipeline.runtime.tensor_files import write_tensor_file
from pipeline.shards.shard import Shard
from tests.support.training import (
    CPU,
    MODELS,
    V,
    W,
    X,
    clusters,
    make_settings,
    make_shard,
    outcome,
    run_stack,
    scores,
    turns,
)
from trainer.evaluation.metrics import Evaluation, Score
from trainer.inference.loading import load_run
from trainer.jobs.train import evaluate_run
from trainer.settings.run_settings import Settings
from trainer.training import loop, method
from trainer.training.run_folder import Checkpoint, Run


def stacks(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[object, ...]]]:
    """Each stack that is trained from here on, as (seed, epochs, split) of its replicas."""
    seen: list[list[tuple[object, ...]]] = []
    train = loop.train

    def watch(runs: Sequence[Run], *rest: object) -> object:
        seen.append([(run.settings.seed, run.settings.epochs, run.settings.split) for run in runs])
        return train(runs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "train", watch)
    return seen


def small(shard: Shard, **changes: object) -> Settings:
    return make_settings("ssmvae", shard, **({"epochs": 1} | changes))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_from_settings_to_result(model: str, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", (X, W, V))
    kinds = {"modalities": ("x",)} if model in ("m2", "sdgm") else {}
    (run,) = run_stack(tmp_path, [make_settings(model, shard, epochs=1, **kinds)], [shard])
    accuracies = scores(run.result())
    if kinds:
        assert list(accuracies) == [("x", "none")]
    else:
        completions = {"sshmvae": ["zeros", "iterative"], "jmvae": ["zeros", "iterative"], "ssmvae": ["zeros"]}
        of_missing = completions.get(model, ["encoders"])
        missing = [("x",), ("w",), ("v",), ("x", "w"), ("x", "v"), ("w", "v")]
        assert list(accuracies) == [("+".join(g), m) for g in missing for m in of_missing] + [("x+w+v", "none")]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies.values())
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "labelled.txt", "metrics.csv", "provenance.json", "result.json", "settings.json", "weights.safetensors",
    ]  # fmt: skip
    ids = (run.folder / "labelled.txt").read_text().split()
    assert len(ids) == len(set(ids)) == 6
    assert set(ids) <= set(shard.train.ids)


def test_what_differs_in_more_than_seed_split_alpha_and_beta_is_trained_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [make_shard(tmp_path / f"{split}.h5", split=split) for split in range(2)]
    seen = stacks(monkeypatch)
    stack = [
        small(shards[0], seed=0),
        small(shards[0], seed=1, epochs=2),
        small(shards[1], seed=2, alpha=5),
        small(shards[1], seed=3, epochs=2),
        small(shards[0], seed=4, beta=5),
    ]
    runs = run_stack(tmp_path / "runs", stack, [shards[settings.split or 0] for settings in stack], most=2)
    assert seen == [[(0, 1, 0), (2, 1, 1)], [(4, 1, 0)], [(1, 2, 0), (3, 2, 1)]]
    assert [run.settings for run in runs] == stack  # in the order asked for
    assert all(run.done for run in runs)
    assert [len(run.metrics()) for run in runs] == [1, 2, 1, 2, 1]


def test_splits_with_and_without_unlabelled_rows_are_trained_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_shard(tmp_path / "full.h5", split=0)
    partly = make_shard(tmp_path / "partly.h5", split=1, train=clusters("train", [-1, *turns(39)], (X, W)))
    seen = stacks(monkeypatch)
    stack = [small(shard, labels="all", seed=seed) for seed in range(2) for shard in (full, partly)]
    runs = run_stack(tmp_path / "runs", stack, [full, partly] * 2)
    assert seen == [[(0, 1, 0), (1, 1, 0)], [(0, 1, 1), (1, 1, 1)]]
    assert all(run.done for run in runs)


def test_a_different_run_in_one_folder_stops_all_before_anything_is_written(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    run_stack(tmp_path / "runs", [small(shard, seed=9)], [shard])
    (tmp_path / "runs" / "0").rename(tmp_path / "runs" / "1")
    with pytest.raises(DataError, match="asked for seed 1 instead of 9"):
        run_stack(tmp_path / "runs", [small(shard, seed=0), small(shard, seed=1)], [shard, shard])
    assert not (tmp_path / "runs" / "0").exists()


def test_scores_that_are_not_finite_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    bad = Evaluation((Score("x", "none", 1.0, 0.5, 0.1, 12),), float("nan"))
    monkeypatch.setattr(method, "evaluate", lambda *_, **__: [bad])
    with pytest.raises(TrainingError, match="gives scores that are not finite") as caught:
        run_stack(tmp_path, [small(shard)], [shard])
    assert str(tmp_path / "0") in caught.value.message
    assert not Run.open(tmp_path / "0").done


# --- evaluating anew -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "samples"), [("sshmvae", 0), ("sshmvae-kl", 3), ("jmvae", 0)])
def test_a_run_evaluated_anew_scores_the_same(model: str, samples: int, tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [make_settings(model, shard, epochs=1, samples=samples)], [shard])
    assert evaluate_run(run, CPU) == run.result()
    if model == "sshmvae-kl":
        other = evaluate_run(run, CPU, samples=0)
        assert other.elbo != run.result().elbo or other.scores != run.result().scores
    else:
        other = evaluate_run(run, CPU, iterations=1)
        by = {(s.given, s.completion): s.nll for s in run.result().scores}
        changed = {key for key, nll in ((((s.given, s.completion)), s.nll) for s in other.scores) if nll != by[key]}
        assert changed == {("x", "iterative"), ("w", "iterative")}


def test_a_run_whose_shard_is_gone_or_another(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [small(shard)], [shard])
    shard.path.unlink()
    with pytest.raises(DataError) as caught:
        evaluate_run(run, CPU)
    assert str(shard.path) in caught.value.message
    make_shard(shard.path, split=7)
    with pytest.raises(DataError, match=r"is not the shard that .* was trained on: its content differs"):
        evaluate_run(run, CPU)
    run.write_provenance({})
    with pytest.raises(DataError, match=r"provenance\.json does not say which shard"):
        evaluate_run(run, CPU)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    (run,) = run_stack(tmp_path, [small(shard)], [shard])
    trained = load_run(run).generative
    assert trained.noise.seeds == (0,)
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor[0], run.read_weights()[name])
    path = run.folder / "weights.safetensors"
    state = run.read_weights()
    name = next(iter(state))
    write_tensor_file(path, Checkpoint(state | {name: state[name][:-1]}, {}))
    with pytest.raises(DataError, match="do not fit its settings") as caught:
        load_run(run)
    assert str(run.folder) in caught.value.message
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        evaluate_run(run, CPU)


def test_provenance_says_where_with_what_and_how_long(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    run, _ = run_stack(tmp_path, [small(shard), small(shard, seed=1)], [shard, shard])
    provenance = run.provenance()
    assert provenance["shard"] == str(shard.path)
    assert provenance["stacked with"] == 1
    assert provenance["steps an epoch"] == 5
    assert torch.__version__.startswith(provenance["torch"])
    assert provenance["threads"] == torch.get_num_threads()
    differing = [
        name
        for name, content in outcome(run).items()
        if content != outcome(run_stack(tmp_path / "again", [small(shard), small(shard, seed=1)], [shard] * 2)[0])[name]
    ]
    assert differing == []
