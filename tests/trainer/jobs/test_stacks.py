"""How many runs share a stack, where nobody says how many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.training import NETWORKS, W, X, clusters, make_settings, make_shard, run_stack, turns
from trainer.jobs.plan import Job
from trainer.jobs.stacks import PlannedRun, make_stacks

WIDE = NETWORKS["ssmvae"] | {"q(y|X)": "(X-D512BR)-D64BR, DK"}


def sizes(folder: Path, runs: int, networks: dict[str, str], most: int | None = None, **options: int) -> list[int]:
    shard = make_shard(folder / "shard.h5")
    settings = [make_settings("ssmvae", shard, networks=networks, seed=seed) for seed in range(runs)]
    work = [PlannedRun(Job(one, shard), folder / f"run-{one.seed}") for one in settings]
    return [len(stack.folders) for stack in make_stacks(work, most, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("networks", "gpu", "jobs", "expected"),
    [
        (NETWORKS["ssmvae"], False, 1, [5]),
        (NETWORKS["ssmvae"], False, 2, [3, 2]),
        (NETWORKS["ssmvae"], False, 9, [1, 1, 1, 1, 1]),
        (WIDE, False, 1, [1, 1, 1, 1, 1]),
        (WIDE, True, 1, [5]),
        (WIDE, True, 2, [3, 2]),
    ],
)
def test_narrow_networks_are_stacked_everywhere_and_wide_ones_on_a_gpu(
    tmp_path: Path, networks: dict[str, str], gpu: bool, jobs: int, expected: list[int]
) -> None:
    assert sorted(sizes(tmp_path, 5, networks, gpu=gpu, jobs=jobs), reverse=True) == expected


def test_seventeen_runs_are_cut_into_equal_stacks(tmp_path: Path) -> None:
    assert sorted(sizes(tmp_path, 17, NETWORKS["ssmvae"])) == [8, 9]


def test_splits_of_which_some_have_no_test_part_or_lack_a_modality_in_it(tmp_path: Path) -> None:
    blind = clusters("test", turns(12), (X, W), seed=1)
    blind.present, blind.features["w"] = {"w": np.zeros(12, np.bool_)}, np.zeros((12, W.width), np.float32)
    parts: list[dict[str, Any]] = [{}, {"test": None}, {"test": blind}]
    shards = [make_shard(tmp_path / f"{k}.h5", split=k, **changes) for k, changes in enumerate(parts)]
    stack = [make_settings("sshmvae-kl", shard) for shard in shards]
    runs = run_stack(tmp_path / "runs", stack, shards)
    given = [[score.given for score in run.result().scores] for run in runs]
    assert given == [["x", "w", "x+w"], [], ["x", "x+w"]]
    jobs = [Job(settings, shard) for settings, shard in zip(stack, shards, strict=True)]
    work = [PlannedRun(job, tmp_path / f"new-{k}") for k, job in enumerate(jobs)]
    assert sorted(len(stack.folders) for stack in make_stacks(work)) == [1, 2]


def test_what_the_user_says_goes_before(tmp_path: Path) -> None:
    assert sizes(tmp_path, 4, WIDE, most=4, jobs=2) == [4]
    assert sizes(tmp_path / "narrow", 4, NETWORKS["ssmvae"], most=1) == [1, 1, 1, 1]
