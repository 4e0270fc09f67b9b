"""`mmssl compare`, as a user calls it, on the bundled digits with tiny networks."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.errors import TrainingError
from pipeline.shards.shard import Shard
from tests.support.commands import Command, refused
from tests.support.small_networks import SSHMVAE_KL, as_assignment
from tests.support.training import W, X, clusters, make_shard, turns
from trainer.baselines import consistency_network, rivals
from trainer.baselines.rival_task import Task, load_task
from trainer.jobs.plan import plan
from trainer.reproduction import comparing

TINY = ("--set", as_assignment(SSHMVAE_KL), "--set", "epochs=2")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency_network, "LEAST_STEPS", 20)
    monkeypatch.setattr(consistency_network, "EPOCHS", 1)


def stamps() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path("workspace").rglob("*") if path.is_file()}


def test_compare_ends_in_tables_sentences_a_record_and_a_picture(mmssl: Command) -> None:
    command = ("compare", "hm-digits", "--labels", "20,50", "--seeds", "0..1", "--rivals", "logistic-regression,ls-svc")
    done = mmssl(*command, *TINY)
    assert done.code == 0, done.err
    assert "8 of 8 fits of rivals" in done.err
    assert "hm-digits, 20 labels: test accuracy (%), mean over two seeds" in done.out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == [
        "SS-HMVAE-kl (paper)", "SS-HMVAE-kl (recommended)", "logistic regression", "LS+SVC"
    ] * 2  # fmt: skip
    assert all("±" in cell for row in rows for cell in row[1:4])
    folder = Path("workspace/comparisons/hm-digits")
    assert (folder / "comparison.svg").read_text().startswith("<?xml")
    record = json.loads((folder / "comparison.json").read_text())
    assert record["sentences"] == [line for line in done.out.splitlines() if line.startswith("With ")]
    assert any("LS+SVC is better on w alone" in line for line in record["sentences"])  # two epochs are few
    assert mmssl("runs", "--json").json[0]["epochs"] == 2

    shard = Shard.open(next(Path("workspace/shards").glob("*.h5")))
    (level, _) = record["levels"]
    for seed in (0, 1):
        (job,) = plan("sshmvae-kl", [shard], values={"labels": 20}, seeds=[seed])
        measured = rivals.measure(rivals.rival_named("ls-svc"), load_task(job.settings, shard))
        (system,) = (system for system in level["systems"] if system["name"] == "ls-svc")
        for score in measured.scores:
            assert system["accuracy"][score.given]["values"][seed] == pytest.approx(100 * score.accuracy)
    by_name = {system["name"]: system["accuracy"] for system in level["systems"]}
    assert len(level["differences"]) == 2 * 3
    for pair in level["differences"]:
        ours, theirs = (np.array(by_name[pair[k]][pair["given"]]["values"]) for k in ("ours", "rival"))
        np.testing.assert_allclose(pair["difference"]["values"], theirs - ours)
        assert pair["ours"] == "sshmvae-kl recommended"

    before = stamps()
    again = mmssl(*command, *TINY)
    assert again.out == done.out
    assert "fits of rivals" not in again.err
    assert "nothing is left to train" in again.err
    after = stamps()
    assert after.keys() == before.keys()
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed <= {"comparison.json"}  # its provenance says when and with which command

    reported = mmssl("report", folder, "--markdown", "out.md", "--html", "out.html")
    assert reported.code == 0
    assert "| 20 labels | x (w missing) | SS-HMVAE-kl (recommended) |" in Path("out.md").read_text()
    assert "left out" not in reported.err

    kept = sorted((folder / "rivals").glob("ls-svc-labels-20-seed-0-*.json"))
    kept[0].write_text("{")
    repaired = mmssl(*command, *TINY, "--json")
    assert "computed again" in repaired.err
    assert "1 of 1 fits of rivals" in repaired.err
    assert repaired.json["levels"][0]["differences"] == level["differences"]


def test_all_rivals_on_marked_labels_and_several_splits(mmssl: Command) -> None:
    for split in (0, 1):
        train = clusters("train", turns(60), (X, W), seed=split, spread=0.4)
        train.labelled = np.arange(60) < 9
        make_shard(Path(f"mine-{split}.h5"), train=train, split=split, preset="digits")
    done = mmssl("compare", "./mine-{split}.h5", "--split", "0,1", "--seeds", 0, *TINY, "--out", "here", "--json")
    assert done.code == 0, done.err
    assert ", ".join(rivals.rival_names()) in " ".join(mmssl("compare", "--help").out.replace("│", " ").split())
    (level,) = done.json["levels"]
    assert (level["labels"], level["count"], done.json["replicas"]) == ("shard", 9, [[0, 0], [1, 0]])
    assert [system["name"] for system in level["systems"]] == [
        "sshmvae-kl paper", "sshmvae-kl recommended", *rivals.rival_names()
    ]  # fmt: skip
    assert json.loads(Path("here/comparison.json").read_text())["levels"] == done.json["levels"]
    assert all(system["seconds"] > 0 for system in level["systems"])


def test_a_single_modality_leaves_out_co_training_in_words(mmssl: Command) -> None:
    make_shard(Path("mine.h5"), train=clusters("train", turns(60), (X, W)), preset="digits")
    done = mmssl(
        "compare", "./mine.h5", "--labels", 6, "--seeds", 0, "--modality", "w", "--rivals",
        "co-training,logistic-regression", *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "CT+SVM was left out: it needs two modalities that label examples for each other." in done.out
    record = json.loads(Path("workspace/comparisons/clusters-w/comparison.json").read_text())
    assert record["given"] == ["w"]
    assert record["levels"][0]["systems"][0]["accuracy"]["w"]["half_width"] is None


def test_a_signal_keeps_what_is_computed_and_the_same_command_goes_on(
    mmssl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shard(Path("mine.h5"), train=clusters("train", turns(60), (X, W)), preset="digits")
    command = ("compare", "./mine.h5", "--labels", 6, "--seeds", "0..3", "--rivals", "logistic-regression", *TINY)
    measured: list[int] = []

    def stopped(rival: rivals.Rival, task: Task) -> rivals.RivalScores:
        measured.append(task.seed)
        if len(measured) == 3:
            signal.raise_signal(signal.SIGTERM)
        return rivals.measure(rival, task)

    monkeypatch.setattr(comparing, "measure", stopped)
    refused(mmssl(*command), 75, "stopped by SIGTERM")
    assert not list(Path("workspace").rglob("comparison.json"))
    assert len(list(Path("workspace/comparisons/clusters/rivals").glob("*.json"))) == 2
    done = mmssl(*command)
    assert done.code == 0
    assert measured == [0, 1, 2, 2, 3]


def test_a_rival_that_cannot_be_fitted_is_left_out_in_words(mmssl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shard(Path("mine.h5"), train=clusters("train", turns(60), (X, W)), preset="digits")

    def failing(rival: rivals.Rival, task: Task) -> rivals.RivalScores:
        if rival.name == "ls-svc":
            raise TrainingError("LS+SVC cannot be fitted: no row is sure")
        return rivals.measure(rival, task)

    monkeypatch.setattr(comparing, "measure", failing)
    command = (
        "compare",
        "./mine.h5",
        "--labels",
        6,
        "--seeds",
        "0..1",
        "--rivals",
        "logistic-regression,ls-svc",
        *TINY,
    )
    done = mmssl(*command)
    assert done.code == 0, done.err
    assert "4 of 4 fits of rivals" in done.err
    assert "LS+SVC was left out: LS+SVC cannot be fitted: no row is sure." in done.out
    kept = Path("workspace/comparisons/clusters/rivals")
    assert {path.name.split("-labels")[0] for path in kept.iterdir()} == {"logistic-regression"}


def test_what_makes_no_sense_is_refused_before_any_work(mmssl: Command) -> None:
    refused(mmssl("compare", "hm-digits", "--rivals", "nonsense"), 2, "no rival 'nonsense'", "ls-svc")
    refused(mmssl("compare", "hm-digits", "--labels", "20,many"), 2, "'many' is not a number of labels")
    refused(mmssl("compare", "hm-digits", "--labels", "20,20"), 2, "occurs twice")
    refused(mmssl("compare", "hm-digits", "--models", "nonsense"), 2, "nonsense")
    refused(mmssl("compare", "hm-digits", "--models", "ct-svm"), 2, "ct-svm")
    refused(mmssl("compare", "hm-digits", "--labels", "5"), 2, "5 labels cannot cover 10 classes")
    refused(mmssl("compare", "nowhere"), 2, "no data set 'nowhere'")
    assert not Path("workspace/runs").exists()
    assert not Path("workspace/comparisons").exists()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("modalities=3", "is not a list of modalities"),
        ("modalities=[1]", "is not a list of modalities"),
        ("labels=true", "'True' is not a number of labels"),
        ("split=[1,true]", "'True' is not a number or a range"),
        ("networks=3", "networks"),
        ("cotraining=3", "cotraining"),
        ("epochs=true", "epochs"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_one_sentence(mmssl: Command, assignment: str, words: str) -> None:
    refused(mmssl("compare", "hm-digits", "--set", assignment), 2, words)
