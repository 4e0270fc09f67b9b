"""Training beyond memory: every row once a pass, an order that needs no state, the same end as in memory."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import DataError, Interrupted
from pipeline.shards.shard import Shard
from pipeline.shards.writing import PartData
from tests.support.paths import ROOT
from tests.support.streamed_data import ROWS, numbered, streamed, streaming_settings
from tests.support.training import (
    CPU,
    NETWORKS,
    StopAfter,
    W,
    X,
    clusters,
    make_settings,
    make_shard,
    outcome,
    run_stack,
    turns,
)
from trainer.data import resident
from trainer.data.interface import Data
from trainer.data.selection import choose_labelled, labelled_share
from trainer.data.streaming import load
from trainer.data.windows import Layout
from trainer.evaluation.evaluate import evaluate
from trainer.jobs.plan import plan
from trainer.settings.presets import preset_values
from trainer.settings.run_settings import Settings
from trainer.training.step import Step


def passed(stack: list[Settings], data: Data, steps: range) -> np.ndarray:
    """Which rows the unlabelled batches of these steps hold, `[steps, R, B]`, by the features a step would see."""
    streams = data.streams("unlabelled", [settings.seed for settings in stack], stack[0].batch_size)
    index, seen = data.first_index(streams), []
    with closing(data):
        for number in steps:
            data.write_indices(index, streams, number)
            x = data.x(index)
            assert torch.equal(x["x"][..., 0] * 2**16, x["w"][..., 0])  # modalities stay together
            seen.append(x["w"][..., 0].long().numpy())
    return np.stack(seen)


# --- the order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [40, 200, 1000, 3000])
def test_a_pass_takes_every_unlabelled_row_exactly_once(window: int, tmp_path: Path) -> None:
    """A window may be smaller than one of the shard's chunks (all of it, here), or larger than the shard."""
    shard = numbered(tmp_path / "shard.h5")
    settings = streaming_settings(shard, window=window, batch_size=9)  # 1170 rows are 130 batches
    seen = passed([settings], streamed([settings], shard), range(390))[:, 0].reshape(3, -1)
    labelled = choose_labelled(settings, shard)
    for one_pass in seen:
        assert sorted(one_pass) == sorted(set(range(ROWS)) - set(labelled))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])


def test_a_batch_is_mixed_from_all_over_its_window_and_a_window_from_all_over_the_shard(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5", rows=9000)
    settings = streaming_settings(shard, window=1500, batch_size=50)
    seen = passed([settings], streamed([settings], shard), range(180))[:, 0]
    batches = seen.mean(1)  # of rows drawn evenly: 4500, and a standard deviation of 2598 / sqrt(50) = 367
    assert abs(batches.mean() - 4500) < 60
    assert 250 < batches.std() < 900  # a window's blocks add their own
    first = np.sort(seen[:25].ravel())  # within the first window
    assert len(np.unique(first // 93)) >= 12  # of its 16 blocks
    assert np.abs(np.corrcoef(seen[:29].ravel()[:-1], seen[:29].ravel()[1:])[0, 1]) < 0.1  # neighbours do not follow


def test_a_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5")
    settings = streaming_settings(shard, batch_size=13)
    whole = passed([settings], streamed([settings], shard), range(200))
    for begin in (1, 57, 90, 150):  # whatever was read before
        assert np.array_equal(
            passed([settings], streamed([settings], shard), range(begin, begin + 20)), whole[begin : begin + 20]
        )
    other = [settings.model_copy(update={"seed": 1})]
    assert not np.array_equal(passed(other, streamed(other, shard), range(20)), whole[:20])


def test_replicas_of_one_shard_share_its_windows_and_none_changes_another(tmp_path: Path) -> None:
    shard, other = numbered(tmp_path / "a.h5"), numbered(tmp_path / "b.h5", rows=900)
    stack = [
        streaming_settings(shard, seed=3),
        streaming_settings(shard, seed=4),
        streaming_settings(shard, seed=4, alpha=5),
        streaming_settings(other, seed=3),
    ]
    shards = [shard, shard, shard, other]
    data = streamed(stack, *shards)
    assert data.feeds[0] is data.feeds[1] is data.feeds[2] is not data.feeds[3]
    reads: list[int] = []
    loading = data.feeds[0].reader._load
    data.feeds[0].reader._load = lambda number: (reads.append(number), loading(number))[1]  # type: ignore[method-assign]
    together = passed(stack, data, range(300))
    assert reads == list(range(len(reads)))  # each window once for the three of them
    assert np.array_equal(together[:, 1], together[:, 2])
    for r in range(4):
        alone = passed(stack[r : r + 1], streamed(stack[r : r + 1], shards[r]), range(300))
        assert np.array_equal(alone[:, 0], together[:, r])


def test_blocks_without_a_row_to_stream_are_not_read(tmp_path: Path) -> None:
    layout = Layout(160, 4, np.concatenate([np.arange(0, 100), np.arange(900, 1000)]))
    assert layout.block == 10
    assert sorted(layout.blocks) == [*range(10), *range(90, 100)]
    shard = numbered(tmp_path / "shard.h5")
    shard = numbered(
        tmp_path / "marked.h5",
        train=PartData(
            {name: shard.train.features(name) for name in "xw"},
            shard.train.labels, shard.train.ids, np.arange(ROWS) < 900,
        ),
    )  # fmt: skip
    settings = streaming_settings(shard, labels="shard", window=160, batch_size=10)
    data = streamed([settings], shard)
    assert data.feeds[0].layout.blocks.min() == 90
    assert sorted(passed([settings], data, range(30)).ravel()) == list(range(900, 1200))


def test_where_every_row_is_labelled_they_stream_with_their_labels(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5")
    settings = streaming_settings(shard, labels="all", batch_size=10)
    data = streamed([settings], shard)
    assert data.paced == "labelled"
    step = Step([settings], data, CPU)
    assert step.batches.index_l is not None
    seen = []
    with closing(data):
        for number in range(step.batches.per_epoch):
            step.batches.load(number)
            rows = data.x(step.batches.index_l)["w"][0, :, 0].long()
            assert data.y(step.batches.index_l)[0].argmax(-1).tolist() == (rows % 3).tolist()
            seen += rows.tolist()
    assert sorted(seen) == list(range(ROWS))


# --- training --------------------------------------------------------------------------------------------------------


def test_labelled_rows_and_the_test_set_are_those_of_training_in_memory(tmp_path: Path) -> None:
    shard, other = numbered(tmp_path / "a.h5"), numbered(tmp_path / "b.h5", rows=900)
    stack, shards = (
        [streaming_settings(shard), streaming_settings(shard, seed=1), streaming_settings(other)],
        [shard, shard, other],
    )
    whole, parts = resident.load(stack, shards, CPU), streamed(stack, *shards)
    assert torch.equal(labelled_share(whole.examples), labelled_share(parts.examples))
    seeds = [settings.seed for settings in stack]
    whole_streams, parts_streams = whole.streams("labelled", seeds, 7), parts.streams("labelled", seeds, 7)
    a, b = whole.first_index(whole_streams), parts.first_index(parts_streams)
    for number in range(20):
        whole.write_indices(a, whole_streams, number)
        parts.write_indices(b, parts_streams, number)
        assert torch.equal(whole.x(a)["x"], parts.x(b)["x"])
        assert torch.equal(whole.y(a), parts.y(b))
    for size in (20, 1000):
        rows = [[d.x(i)["w"][..., 0] for i, _ in d.test_batches(size)] for d in (whole, parts)]
        assert torch.equal(torch.cat(rows[0], 1), torch.cat(rows[1], 1))
    assert [labels.tolist() for labels in whole.test_labels()] == [labels.tolist() for labels in parts.test_labels()]


def test_the_same_weights_have_the_same_scores(tmp_path: Path) -> None:
    train, test = clusters("train", turns(400), (X, W)), clusters("test", turns(90), (X, W), seed=1, spread=0.6)
    shard = make_shard(tmp_path / "shard.h5", train=train, test=test)
    for model in ("ssmvae", "jmvae"):  # jmvae's probe reads the labelled rows
        settings = make_settings(model, shard, window=80, labels=30)
        data: list[Data] = [streamed([settings], shard), resident.load([settings], [shard], CPU)]
        step = Step([settings], data[0], CPU)
        a, b = (evaluate(step.model, step.noise, d, iterations=2, samples=0)[0] for d in data)
        for streamed_score, resident_score in zip(a.scores, b.scores, strict=True):
            if streamed_score.completion != "iterative":  # its noise depends on the size of the batches
                assert streamed_score.accuracy == resident_score.accuracy
                assert streamed_score.nll == pytest.approx(resident_score.nll, rel=1e-4)


def test_stopped_at_any_step_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5", train=clusters("train", turns(200), (X, W)))
    other = make_shard(tmp_path / "other.h5", train=clusters("train", turns(180), (X, W), seed=5))
    stack = [make_settings("ssmvae", s, seed=n, window=48) for s, n in ((shard, 0), (shard, 1), (other, 0))]
    shards = [shard, shard, other]
    whole = [outcome(run) for run in run_stack(tmp_path / "whole", stack, shards)]
    stops = StopAfter(1, 24, 40)  # an epoch has 25 steps
    for _ in range(3):
        begun = time.monotonic()
        with pytest.raises(Interrupted):
            run_stack(tmp_path / "stopped", stack, shards, stops)
        assert time.monotonic() - begun < 5
    assert [outcome(run) for run in run_stack(tmp_path / "stopped", stack, shards, stops)] == whole
    alone = run_stack(tmp_path / "alone", stack[:1], shards[:1])
    assert (alone[0].folder / "labelled.txt").read_bytes() == whole[0]["labelled.txt"]


def test_killed_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """After a stop, `kill -9` while windows are read ahead; then the same call again."""
    shard = make_shard(tmp_path / "shard.h5", train=clusters("train", turns(200), (X, W)))
    settings = make_settings("ssmvae", shard, window=48)
    (whole,) = run_stack(tmp_path / "whole", [settings], [shard])
    with pytest.raises(Interrupted):
        run_stack(tmp_path / "killed", [settings], [shard], StopAfter(17))
    code = (
        "import signal\n"
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from pipeline.shards.shard import Shard\n"
        "from tests.support.training import StopAfter, make_settings, run_stack\n"
        f"shard = Shard.open({str(shard.path)!r})\n"
        "own = make_settings('ssmvae', shard, window=48)\n"
        f"run_stack(Path({str(tmp_path / 'killed')!r}), [own], [shard], StopAfter(40, which=signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (again,) = run_stack(tmp_path / "killed", [settings], [shard])
    assert outcome(again) == outcome(whole)


@pytest.mark.slow
def test_it_learns_the_bundled_digits_as_well_as_in_memory(tmp_path: Path) -> None:
    from pipeline.datasets.resolve import shard_paths

    (path,) = shard_paths("hm-digits", [], tmp_path)
    shard = Shard.open(path)
    small = {name: text.replace("D512", "D64") for name, text in preset_values("digits", "ssmvae")["networks"].items()}
    accuracy = {}
    for limit in (None, "250kB"):
        values = {"epochs": 8, "networks": small, "batch_size": 64, "labelled_batch_size": 30, "iterations": 1} | (
            {"memory_limit": limit} if limit else {}
        )
        jobs = plan("ssmvae", [shard], values=values, seeds=(0, 1), alphas=(10,))
        windows = {job.settings.window for job in jobs}
        assert (windows == {None}) if limit is None else all(w and w < shard.train.rows / 2 for w in windows)
        runs = run_stack(tmp_path / str(limit), [job.settings for job in jobs], [shard] * 2)
        best = [max(float(line["accuracy x+w"]) for line in run.metrics()) for run in runs]
        accuracy[limit] = np.mean(best)
    assert accuracy[None] > 0.6
    assert abs(accuracy[None] - accuracy["250kB"]) < 0.08


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_shard_cut_short_during_training_is_one_error(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5", rows=60_000, width=10)  # several chunks, or HDF5 keeps it all
    settings = streaming_settings(shard, window=400)

    class Cut(StopAfter):
        def step(self, done: int, _: int) -> None:
            if done == 2:
                os.truncate(shard.path, shard.path.stat().st_size // 4)

    with pytest.raises(DataError, match=r"shard.h5: .*(damaged|cut short)"):
        run_stack(tmp_path / "run", [settings], [shard], Cut())


def test_a_stop_with_both_windows_full_ends_at_once(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5")
    settings = streaming_settings(shard, window=400)

    class Wait(StopAfter):
        def step(self, done: int, _: int) -> None:
            if done == 3:
                time.sleep(0.3)  # the reader has nothing left to do but wait
                self.asked = time.monotonic()
                signal.raise_signal(signal.SIGINT)

    wait = Wait()
    with pytest.raises(Interrupted, match="stopped by SIGINT after 3 of"):
        run_stack(tmp_path / "run", [settings], [shard], wait)
    assert time.monotonic() - wait.asked < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: captured streaming is not compared")
def test_a_captured_step_streams_the_same_rows(tmp_path: Path) -> None:
    shard = numbered(tmp_path / "shard.h5", width=2048)
    settings = streaming_settings(shard, window=200, networks=NETWORKS["ssmvae"], precision="fp32")
    device = torch.device("cuda")
    here, there = (
        Step([settings], streamed([settings], shard), CPU),
        Step([settings], load([settings], [shard], device), device),
    )
    with closing(here.data), closing(there.data):
        for number in range(400):
            here.batches.load(number)
            there(number)
            assert here.batches.index_u is not None
            assert there.batches.index_u is not None
            if number % 7 == 0:
                here_rows, there_rows = here.data.x(here.batches.index_u)["w"], there.data.x(there.batches.index_u)["w"]
                assert torch.equal(here_rows, there_rows.cpu())
    assert bool(there.terms.finite.all())
