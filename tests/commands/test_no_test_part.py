"""Data without a test part: a model is trained and used, and every command says that nothing is measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import Command, refused

SENTENCE = "the data has no test part, so nothing is measured"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A shard of 60 rows without a test part, of which a third lack `touch`, and a run on it."""
    import mmssl

    folder, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    label = np.arange(60) % 3
    touch = np.arange(60) % 4 > 0
    shard = mmssl.write_shard(
        folder / "mine.h5",
        dataset="mine",
        classes=["cup", "bowl", "hat"],
        modalities=[mmssl.Modality("camera", 6, "gaussian"), mmssl.Modality("touch", 4, "gaussian")],
        train=mmssl.PartData(
            {
                "camera": rng.normal(3 * label[:, None] - 3, 1, (60, 6)).astype(np.float32),
                "touch": (rng.normal(label[:, None] - 1, 1, (60, 4)) * touch[:, None]).astype(np.float32),
            },
            np.where(np.arange(60) < 30, label, -1),
            [f"row-{row}" for row in range(60)],
            present={"touch": touch},
        ),
    )
    (run,) = mmssl.train("sshmvae-kl", shard.path, out=folder / "runs", device="cpu", epochs=2)
    return shard.path, run.folder


def test_training_says_what_can_be_done_instead_of_an_empty_table(
    trained: tuple[Path, Path], mmssl: Command, tmp_path: Path
) -> None:
    done = mmssl("train", "sshmvae-kl", "--data", trained[0], "--epochs", 1, "--device", "cpu")
    assert done.code == 0, done.err
    what, sentence, folder = done.out.splitlines()
    assert "pooling product" in what
    assert sentence == f"{SENTENCE}; mmssl predict RUN SOURCE names rows, mmssl export RUN makes a model to keep"
    assert Path(folder).is_relative_to(tmp_path / "workspace" / "runs")
    again = mmssl("train", "sshmvae-kl", "--data", trained[0], "--epochs", 1, "--device", "cpu", "--json")
    assert json.loads(again.out)[0]["result"]["scores"] == []


def test_evaluate_and_runs(trained: tuple[Path, Path], mmssl: Command) -> None:
    done = mmssl("evaluate", trained[1], "--device", "cpu")
    assert (done.code, done.out.splitlines()) == (0, [trained[1].name, SENTENCE])
    assert json.loads(mmssl("evaluate", trained[1], "--json").out)[0]["scores"] == []
    listed = mmssl("runs", trained[1].parent)
    assert (listed.code, "no test part" in listed.out) == (0, True)


def test_report(trained: tuple[Path, Path], mmssl: Command, tmp_path: Path) -> None:
    done = mmssl("report", trained[1], "--html", "r.html", "--markdown", "r.md", "--json", "r.json", "--device", "cpu")
    assert done.code == 0, done.err
    assert f"{SENTENCE.capitalize()}." in (tmp_path / "r.html").read_text()
    assert f"**{SENTENCE.capitalize()}.**" in (tmp_path / "r.md").read_text()
    assert json.loads((tmp_path / "r.json").read_text())["tables"] == []


def test_generate_is_refused(trained: tuple[Path, Path], mmssl: Command) -> None:
    done = mmssl("generate", trained[1], "--from", "camera", "--to", "touch", "--out", "made.npz")
    refused(done, 1, "no test example has camera and touch", "impute")


def test_export_and_predict(trained: tuple[Path, Path], mmssl: Command, tmp_path: Path) -> None:
    done = mmssl("export", trained[1], "--out", "model")
    assert done.code == 0, done.err
    assert "no threshold for abstaining could be chosen" in done.err
    assert mmssl("predict", "model", trained[0], "--out", "p.csv", "--device", "cpu").code == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 61


def test_comparing_is_refused_before_anything_is_trained(trained: tuple[Path, Path], mmssl: Command) -> None:
    refused(mmssl("compare", trained[0], "--labels", 6, "--device", "cpu"), 1, "no labelled test example", "--test 0.2")
    assert not Path("workspace/runs").exists()


def test_several_settings_show_no_differences(trained: tuple[Path, Path], mmssl: Command) -> None:
    done = mmssl("train", "sshmvae-kl", "--data", trained[0], "--alpha", "0.1,1", "--epochs", 1, "--device", "cpu")
    assert done.code == 0, done.err
    assert SENTENCE in done.out
