"""Few and odd rows through the real commands: they work, or say why in a sentence; one bad split stops no other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.shards.schema import Modality
from pipeline.shards.shard import Shard
from pipeline.shards.writing import PartData, write_shard
from tests.support.commands import Command

FAST = ("--epochs", 1, "--iterations", 1, "--device", "cpu")


def odd(
    path: Path,
    train: Sequence[int],
    test: Sequence[int],
    *,
    modalities: str = "xw",
    constant: bool = False,
    labelled: Sequence[bool] | None = None,
    **header: Any,
) -> Shard:
    """A shard with these labels, one row each."""
    rng = np.random.default_rng(0)

    def part(name: str, labels: Sequence[int]) -> PartData:
        shape = (len(labels), 4)
        features = {
            m: np.full(shape, 0.5, np.float32) if constant else rng.random(shape, np.float32) for m in modalities
        }
        return PartData(features, list(labels), [f"{name}-{row}" for row in range(len(labels))])

    rows = part("train", train)
    rows.labelled = None if labelled is None else np.array(labelled)
    classes = [f"class {k}" for k in range(max(train) + 1)]
    return write_shard(
        path,
        dataset="odd",
        classes=classes,
        modalities=[Modality(m, 4, "bernoulli") for m in modalities],
        train=rows,
        test=part("test", test),
        **header,
    )


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param({"train": [0, 1, 0], "test": [1]}, id="three rows"),
        pytest.param({"train": [0, 1, -1], "test": [1]}, id="three rows, one without a label"),
        pytest.param({"train": [0, 1, 0, 1, -1], "test": [0, 1], "modalities": "x"}, id="one modality"),
        pytest.param({"train": [0, 1, 0, 1, -1], "test": [0, 1], "constant": True}, id="constant features"),
        pytest.param({"train": [0, 1, 2, 3, 4], "test": [0, 1, 2, 3, 4]}, id="one row per class"),
    ],
)
def test_few_and_odd_rows_go_all_the_way(mmssl: Command, tmp_path: Path, rows: dict[str, Any]) -> None:
    shard = odd(tmp_path / "odd.h5", **rows)
    trained = mmssl("train", "sshmvae-kl", "--data", shard.path, "--labels", "all", *FAST)
    assert trained.code == 0, trained.err
    run = trained.out.splitlines()[-1]
    for command in (("evaluate", run), ("predict", run, shard.path)):
        done = mmssl(*command, "--device", "cpu")
        assert done.code == 0, done.err


def test_a_split_without_a_label_of_a_class_is_named_and_the_others_are_trained(mmssl: Command, tmp_path: Path) -> None:
    labels = [0, 1, 2] * 4
    for split in range(3):
        marked = [row < 6 and not (split == 1 and label == 2) for row, label in enumerate(labels)]
        odd(tmp_path / f"odd-split-{split}.h5", labels, [0, 1, 2], labelled=marked, split=split)
    done = mmssl("train", "ssmvae", "--data", tmp_path / "odd-split-{split}.h5", "--split", "0..2", *FAST)
    assert done.code == 1
    assert len(list((tmp_path / "workspace/runs").glob("*/result.json"))) == 2
    assert "split-1" in done.err or "split 1" in done.err
    assert "class 2" in done.err
    assert "Traceback" not in done.err
