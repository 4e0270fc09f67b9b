"""Stopping and going on leaves no trace."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.errors import DataError, Interrupted, UsageError
from tests.support.paths import ROOT
from tests.support.training import (
    NETWORKS,
    StopAfter,
    make_settings,
    make_shard,
    outcome,
    run_stack,
)
from trainer.training import loop, method
from trainer.training.run_folder import Checkpoint, Run

DROPOUT = NETWORKS["ssmvae"] | {"q(y|X)": "(X-D8BR-Dropout0.5)-D8BR-Dropout0.25, DK"}


RESUMED: dict[str, dict[str, Any]] = {
    "gumbel": {"model": "sshmvae"},
    "exact": {"model": "ssmvae", "label_estimator": "exact"},
    "dropout": {"model": "ssmvae", "networks": DROPOUT, "samples": 2},
    "kl": {"model": "sshmvae-kl", "beta": 0.1},
    "no labels": {"model": "jmvae-kl"},
    "all labelled": {"model": "ssmvae", "labels": "all"},
    "beyond": {
        "model": "sshmvae-kl", "partial_alpha": 1, "consistency": 1, "smoothness": 1, "averaging": 0.9,
        "schedule": "cosine", "propagation": 1, "partial_smoothness": 1,
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
        assert caught.value.message == f"stopped by SIGTERM after {done} of 10 steps; progress is saved"
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
    code = CHILD.format(shard=str(shard.path), folder=str(tmp_path / "disturbed"))
    folder = tmp_path / "disturbed" / "0"
    for which, after, expected in ((signal.SIGTERM, 2, 75), (signal.SIGKILL, 7, -signal.SIGKILL)):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
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
            assert 2 <= Run.open(folder).read_checkpoint().values["step"] < 7
        else:
            assert Run.open(folder).read_checkpoint().values["step"] == 5
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
    content = path.read_bytes()
    path.write_bytes((first.folder / "checkpoint.safetensors").read_bytes())
    with pytest.raises(DataError, match="belongs to a run with other settings") as caught:
        run_stack(tmp_path, stack, [shard, shard])
    assert str(path) in caught.value.message
    path.write_bytes(content)
    for run in (first, second):
        checkpoint = run.read_checkpoint()
        assert checkpoint is not None
        run.write_checkpoint(Checkpoint(checkpoint.tensors, checkpoint.values | {"device": "cuda"}))
    with pytest.raises(UsageError, match="was started on cuda") as refused:
        run_stack(tmp_path, stack, [shard, shard])
    assert "--device cuda" in str(refused.value.hint)
